
/* The pixels under a filter, channels last: row r is output pixel first + r, K runs over taps and channels. */
template <typename T, int ROWS, int THREADS, int CHANNELS, int KH, int KW, int SH, int SW, int DH, int DW>
struct graphc_windows {
  static constexpr int PER = ROWS * 8 / THREADS;
  const T *base;
  int height, width, depth;
  const T *start[PER]; /* the first pixel under the filter; meaningless where it is not in the picture */
  int y[PER], x[PER];
  __device__ __forceinline__ graphc_windows(const void *base, int64_t first, int64_t pixels, int height, int width,
                                            int out_height, int out_width, int top, int left)
      : base((const T *)base), height(height), width(width), depth(KH * KW * CHANNELS) {
#pragma unroll
    for (int i = 0; i < PER; i++) {
      int64_t pixel = first + (i * THREADS + (int)threadIdx.x) / 8;
      bool inside = pixel < pixels;
      int64_t row = pixel / out_width, image = row / out_height;
      x[i] = (int)(pixel - row * out_width) * SW - left;
      y[i] = inside ? (int)(row - image * out_height) * SH - top : -(1 << 29);
      start[i] = this->base + ((image * height + y[i]) * width + x[i]) * CHANNELS;
    }
  }
  __device__ __forceinline__ void copy(unsigned char *tile, int step) const {
    int k = step * (128 / (int)sizeof(T)) + (int)threadIdx.x % 8 * (16 / (int)sizeof(T)), tap = k / CHANNELS;
    copy_tap(tile, k < depth, tap / KW * DH, tap % KW * DW, k % CHANNELS);
  }
  /* The thread's chunks, from the channel of the tap at (dy, dx) on. */
  __device__ __forceinline__ void copy_tap(unsigned char *tile, bool there, int dy, int dx, int channel) const {
    int chunk = (int)threadIdx.x % 8;
    int64_t offset = ((int64_t)dy * width + dx) * CHANNELS + channel;
#pragma unroll
    for (int i = 0; i < PER; i++) {
      bool inside = there && (unsigned int)(y[i] + dy) < (unsigned int)height &&
                    (unsigned int)(x[i] + dx) < (unsigned int)width;
      const T *from = inside ? start[i] + offset : base;
      graphc_cp_async_16(tile + graphc_swizzled((i * THREADS + (int)threadIdx.x) / 8, chunk), from, inside ? 16 : 0);
    }
  }
};

/* The pixels that one phase of a convolution meets whose pixels have zeros between them (how cotangents go back through
 * strides): only the launch knows how many taps that is, `across` of them beside each other. */
template <typename T, int ROWS, int THREADS, int CHANNELS, int DH, int DW>
struct graphc_phase_windows : graphc_windows<T, ROWS, THREADS, CHANNELS, 1, 1, 1, 1, DH, DW> {
  int across, depth;
  __device__ __forceinline__ graphc_phase_windows(const void *base, int64_t first, int64_t pixels, int height, int width,
                                                  int out_height, int out_width, int top, int left, int across,
                                                  int depth)
      : graphc_windows<T, ROWS, THREADS, CHANNELS, 1, 1, 1, 1, DH, DW>(base, first, pixels, height, width, out_height,
                                                                       out_width, top, left),
        across(across), depth(depth) {}
  __device__ __forceinline__ void copy(unsigned char *tile, int step) const {
    int k = step * (128 / (int)sizeof(T)) + (int)threadIdx.x % 8 * (16 / (int)sizeof(T)), tap = k / CHANNELS;
    this->copy_tap(tile, k < depth, tap / across * DH, tap % across * DW, k % CHANNELS);
  }
};

/* The same element by element, for channels that do not come in chunks of 16 bytes: the three of a picture. */
template <typename T, int ROWS, int THREADS, int CHANNELS, int KH, int KW, int SH, int SW, int DH, int DW>
struct graphc_window_elements {
  const T *base;
  int64_t first, pixels;
  int height, width, out_height, out_width, top, left;
  __device__ __forceinline__ graphc_window_elements(const void *base, int64_t first, int64_t pixels, int height,
                                                    int width, int out_height, int out_width, int top, int left)
      : base((const T *)base), first(first), pixels(pixels), height(height), width(width), out_height(out_height),
        out_width(out_width), top(top), left(left) {}
  __device__ __forceinline__ void copy(unsigned char *tile, int step) const {
    constexpr int WIDTH = 128 / (int)sizeof(T), CHUNK = 16 / (int)sizeof(T);
#pragma unroll 4
    for (int i = 0; i < ROWS * WIDTH / THREADS; i++) {
      int place = i * THREADS + (int)threadIdx.x, r = place / WIDTH, column = place % WIDTH;
      int k = step * WIDTH + column, tap = k / CHANNELS, channel = k % CHANNELS;
      int64_t pixel = first + r, row = pixel / out_width, image = row / out_height;
      int x = (int)(pixel - row * out_width) * SW - left + tap % KW * DW;
      int y = (int)(row - image * out_height) * SH - top + tap / KW * DH;
      bool inside = pixel < pixels && k < KH * KW * CHANNELS && (unsigned int)y < (unsigned int)height &&
                    (unsigned int)x < (unsigned int)width;
      T *to = (T *)(tile + graphc_swizzled(r, column / CHUNK)) + column % CHUNK;
      const T *from = inside ? base + ((image * height + y) * width + x) * CHANNELS + channel : base;
      if (sizeof(T) == 4)
        graphc_cp_async_4(to, from, inside ? 4 : 0);
      else
        *to = inside ? *from : T(0);
    }
  }
};
