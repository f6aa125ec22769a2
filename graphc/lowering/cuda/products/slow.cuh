
/* ---- Operands whose K is the slow dimension (gradients of weights): a `Source` says where element (k, column) is, null
 * beyond the end. Of 16 bits, columns come in chunks of 16 bytes and lie as they come, [k][column] in panels of 64
 * columns; others are turned on the way. ---- */

template <typename T> struct graphc_matrix_source {
  const T *base;
  int64_t k_stride;
  int columns, depth;
  __device__ __forceinline__ graphc_matrix_source(const void *base, int64_t k_stride, int64_t columns, int64_t depth)
      : base((const T *)base), k_stride(k_stride), columns(columns < (1 << 30) ? (int)columns : 1 << 30),
        depth((int)depth) {}
  __device__ __forceinline__ const T *at(int k, int column) const {
    return k < depth && column < columns ? base + k * k_stride + column : nullptr;
  }
};

/* Channels of the pixels of images of HEIGHT x WIDTH stored with a border, of which `start` is the first. */
template <typename T, int HEIGHT, int WIDTH, int CHANNELS, int STORED_HEIGHT, int STORED_WIDTH>
struct graphc_pixel_source {
  const T *base;
  int first, depth;
  __device__ __forceinline__ graphc_pixel_source(const void *base, int64_t first, int64_t pixels)
      : base((const T *)base), first((int)first), depth((int)pixels) {}
  __device__ __forceinline__ const T *at(int k, int column) const {
    int x = k % WIDTH, row = k / WIDTH, y = row % HEIGHT, image = row / HEIGHT;
    if (k >= depth || first + column >= CHANNELS) return nullptr;
    return base + (((int64_t)image * STORED_HEIGHT + y) * STORED_WIDTH + x) * CHANNELS + first + column;
  }
};

/* What is under the taps of a filter at the same pixels: column is tap * CHANNELS + channel. */
template <typename T, int HEIGHT, int WIDTH, int CHANNELS, int X_HEIGHT, int X_WIDTH, int KH, int KW, int SH, int SW,
          int DH, int DW, int TOP, int LEFT>
struct graphc_tap_source {
  const T *base;
  int first, depth;
  __device__ __forceinline__ graphc_tap_source(const void *base, int64_t first, int64_t pixels)
      : base((const T *)base), first((int)first), depth((int)pixels) {}
  __device__ __forceinline__ const T *at(int k, int column) const {
    int tap = (first + column) / CHANNELS, channel = (first + column) % CHANNELS;
    int row = k / WIDTH, image = row / HEIGHT;
    int x = k % WIDTH * SW + tap % KW * DW - LEFT, y = row % HEIGHT * SH + tap / KW * DH - TOP;
    if (k >= depth || tap >= KH * KW || (unsigned int)x >= X_WIDTH || (unsigned int)y >= X_HEIGHT) return nullptr;
    return base + (((int64_t)image * X_HEIGHT + y) * X_WIDTH + x) * CHANNELS + channel;
  }
};

template <typename T, int COLUMNS, int THREADS, typename Source> struct graphc_slow_chunks {
  Source source;
  __device__ __forceinline__ void copy(unsigned char *tile, int step) const {
#pragma unroll
    for (int i = 0; i < COLUMNS * 8 / THREADS; i++) {
      int place = i * THREADS + (int)threadIdx.x, k = place / (COLUMNS / 8), chunk = place % (COLUMNS / 8);
      const T *from = source.at(step * 64 + k, chunk * 8);
      graphc_cp_async_16(tile + chunk / 8 * (64 * 128) + graphc_swizzled(k, chunk % 8),
                         from ? (const void *)from : (const void *)source.base, from ? 16 : 0);
    }
  }
};
template <typename T, int COLUMNS, int THREADS, typename Source> struct graphc_slow_elements {
  Source source;
  __device__ __forceinline__ void copy(unsigned char *tile, int step) const {
    constexpr int WIDTH = 128 / (int)sizeof(T), CHUNK = 16 / (int)sizeof(T);
#pragma unroll 4
    for (int i = 0; i < COLUMNS * WIDTH / THREADS; i++) {
      int place = i * THREADS + (int)threadIdx.x, column = place % COLUMNS, k = place / COLUMNS;
      const T *from = source.at(step * WIDTH + k, column);
      T *to = (T *)(tile + graphc_swizzled(column, k / CHUNK)) + k % CHUNK;
      if (sizeof(T) == 4)
        graphc_cp_async_4(to, from ? (const void *)from : (const void *)source.base, from ? 4 : 0);
      else
        *to = from ? *from : T(0);
    }
  }
};
template <typename T, int COLUMNS, int THREADS, typename Source>
GRAPHC_INLINE graphc_slow_chunks<T, COLUMNS, THREADS, Source> graphc_in_chunks(const Source &source) {
  return {source};
}
template <typename T, int COLUMNS, int THREADS, typename Source>
GRAPHC_INLINE graphc_slow_elements<T, COLUMNS, THREADS, Source> graphc_by_element(const Source &source) {
  return {source};
}

/* A loader of the steps from `first` on. */
template <typename Loader> struct graphc_later {
  Loader loader;
  int first;
  __device__ __forceinline__ void copy(unsigned char *tile, int step) const { loader.copy(tile, first + step); }
};
template <typename Loader> GRAPHC_INLINE graphc_later<Loader> graphc_from(const Loader &loader, int first) {
  return {loader, first};
}

/* Whether a loader leaves tiles as [k][column]. */
template <typename Loader> struct graphc_is_slow { static constexpr bool value = false; };
template <typename T, int COLUMNS, int THREADS, typename Source>
struct graphc_is_slow<graphc_slow_chunks<T, COLUMNS, THREADS, Source>> { static constexpr bool value = true; };
template <typename Loader> struct graphc_is_slow<graphc_later<Loader>> : graphc_is_slow<Loader> {};

/* A row of a tile that is [k][column], for ldmatrix. */
GRAPHC_INLINE const unsigned char *graphc_slow_row(const unsigned char *tile, int k, int chunk) {
  return tile + chunk / 8 * (64 * 128) + graphc_swizzled(k, chunk % 8);
}
