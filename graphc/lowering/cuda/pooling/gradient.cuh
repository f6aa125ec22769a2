
/* ---- The gradient of max pooling: one kernel notes the number of each window's first maximum, another has the elements
 * of x and adds up what those windows give that have noted it. A thread has RUN neighbouring channels. ---- */

/* Along one dimension: taps of a window, how far windows and taps are apart, windows that reach over a place. */
template <int TAPS, int STRIDE, int DILATION> struct graphc_taps {
  static constexpr int taps = TAPS, stride = STRIDE, dilation = DILATION, reach = (TAPS - 1) * DILATION;
  static constexpr int windows = reach / STRIDE + 1;
};
template <typename Z, typename Y, typename X> struct graphc_pool {
  typedef Z z;
  typedef Y y;
  typedef X x;
  /* What is short is written out, so that its loads are under way together. */
  static constexpr int unroll = Z::taps * Y::taps * X::taps <= 32 ? 32 : 1;
};

/* The thread's channels of one image, at positions whose strides are those of elements. */
struct graphc_volume {
  const void *base;
  int64_t z_stride, y_stride, x_stride;
  int depth, height, width;
  __device__ __forceinline__ graphc_volume(const void *base, int64_t z_stride, int64_t y_stride, int64_t x_stride,
                                           int depth, int height, int width)
      : base(base), z_stride(z_stride), y_stride(y_stride), x_stride(x_stride), depth(depth), height(height),
        width(width) {}
  __device__ __forceinline__ bool has(int z, int y, int x) const {
    return (unsigned int)z < (unsigned int)depth && (unsigned int)y < (unsigned int)height &&
           (unsigned int)x < (unsigned int)width;
  }
  /* Zeros where a condition does not hold; nothing is read then. */
  template <int RUN, typename T>
  __device__ __forceinline__ void read(T *to, bool holds, int z, int y, int x) const {
    const T *from = (const T *)base + (z * z_stride + y * y_stride + x * x_stride);
    constexpr int BYTES = RUN * (int)sizeof(T);
    if (BYTES == 1) graphc_copy_1_if(holds, to, from);
    if (BYTES == 2) graphc_copy_2_if(holds, to, from);
    if (BYTES == 4) graphc_copy_4_if(holds, to, from);
    if (BYTES == 8) graphc_copy_8_if(holds, to, from);
    if (BYTES == 16) graphc_copy_16_if(holds, to, from);
  }
};

/* The window whose first tap is at (z0, y0, x0): -1 where it has a NaN, or lies beside the image. */
template <typename Stored, typename Note, int RUN, typename Pool>
GRAPHC_INLINE void graphc_note_maxima(void *notes, const graphc_volume &image, int z0, int y0, int x0) {
  typedef typename Stored::type Element;
  typedef decltype(Stored::widen(Element())) Wide;
  Wide best[RUN];
  int first[RUN];
#pragma unroll
  for (int j = 0; j < RUN; j++) best[j] = -(Wide)CUDART_INF_F, first[j] = -1;
#pragma unroll(Pool::unroll)
  for (int a = 0; a < Pool::z::taps; a++)
#pragma unroll(Pool::unroll)
    for (int b = 0; b < Pool::y::taps; b++)
#pragma unroll(Pool::unroll)
      for (int c = 0; c < Pool::x::taps; c++) {
        int z = z0 + a * Pool::z::dilation, y = y0 + b * Pool::y::dilation, x = x0 + c * Pool::x::dilation;
        int number = (a * Pool::y::taps + b) * Pool::x::taps + c;
        bool inside = image.has(z, y, x);
        alignas(16) Element values[RUN];
        image.read<RUN>(values, inside, z, y, x);
#pragma unroll
        for (int j = 0; j < RUN; j++) {
          Wide value = Stored::widen(values[j]);
          if (inside && (value > best[j] || first[j] < 0)) first[j] = number;
          if (inside) best[j] = graphc_max(best[j], value);
        }
      }
  alignas(16) Note found[RUN];
#pragma unroll
  for (int j = 0; j < RUN; j++) found[j] = (Note)(graphc_isnan(best[j]) ? -1 : first[j]);
  constexpr int BYTES = RUN * (int)sizeof(Note);
  if (BYTES == 1) graphc_copy_1(notes, found);
  if (BYTES == 2) graphc_copy_2(notes, found);
  if (BYTES == 4) graphc_copy_4(notes, found);
  if (BYTES == 8) graphc_copy_8(notes, found);
  if (BYTES == 16) graphc_copy_16(notes, found);
}

/* What an element gets that lies at (z0, y0, x0) behind the first tap of the first window. */
template <typename Stored, typename Note, int RUN, typename Pool, typename Sum>
GRAPHC_INLINE void graphc_add_noted(Sum *sums, const graphc_volume &given, const graphc_volume &notes, int z0, int y0,
                                    int x0) {
#pragma unroll
  for (int j = 0; j < RUN; j++) sums[j] = Sum(0);
#pragma unroll(Pool::unroll)
  for (int a = Pool::z::windows - 1; a >= 0; a--)
#pragma unroll(Pool::unroll)
    for (int b = Pool::y::windows - 1; b >= 0; b--)
#pragma unroll(Pool::unroll)
      for (int c = Pool::x::windows - 1; c >= 0; c--) {
        int z = z0 / Pool::z::stride - a, y = y0 / Pool::y::stride - b, x = x0 / Pool::x::stride - c;
        int down = z0 - z * Pool::z::stride, across = y0 - y * Pool::y::stride, along = x0 - x * Pool::x::stride;
        bool over = given.has(z, y, x) && down >= 0 && across >= 0 && along >= 0 && down <= Pool::z::reach &&
                    across <= Pool::y::reach && along <= Pool::x::reach && down % Pool::z::dilation == 0 &&
                    across % Pool::y::dilation == 0 && along % Pool::x::dilation == 0;
        int number = (down / Pool::z::dilation * Pool::y::taps + across / Pool::y::dilation) * Pool::x::taps +
                     along / Pool::x::dilation;
        alignas(16) typename Stored::type values[RUN];
        alignas(16) Note noted[RUN];
        given.read<RUN>(values, over, z, y, x);
        notes.read<RUN>(noted, over, z, y, x);
#pragma unroll
        for (int j = 0; j < RUN; j++)
          if (over && noted[j] == (Note)number) sums[j] += Stored::widen(values[j]);
      }
}
