
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
    int chunk = (int)threadIdx.x % 8, k = step * (128 / (int)sizeof(T)) + chunk * (16 / (int)sizeof(T));
    int tap = k / CHANNELS, channel = k % CHANNELS, dy = tap / KW * DH, dx = tap % KW * DW;
    int64_t offset = ((int64_t)dy * width + dx) * CHANNELS + channel;
#pragma unroll
    for (int i = 0; i < PER; i++) {
      bool inside = k < depth && (unsigned int)(y[i] + dy) < (unsigned int)height &&
                    (unsigned int)(x[i] + dx) < (unsigned int)width;
      const T *from = inside ? start[i] + offset : base;
      graphc_cp_async_16(tile + graphc_swizzled((i * THREADS + (int)threadIdx.x) / 8, chunk), from, inside ? 16 : 0);
    }
  }
};

/* The same over pixels that lie LH and LW apart, with zeros between them: how cotangents go back through strides. */
template <typename T, int ROWS, int THREADS, int CHANNELS, int KH, int KW, int SH, int SW, int DH, int DW, int LH, int LW>
struct graphc_spread_windows {
  static constexpr int PER = ROWS * 8 / THREADS;
  const T *base;
  int height, width;
  int64_t start[PER]; /* the image's first pixel, in elements */
  int y[PER], x[PER];
  __device__ __forceinline__ graphc_spread_windows(const void *base, int64_t first, int64_t pixels, int height,
                                                   int width, int out_height, int out_width, int top, int left)
      : base((const T *)base), height(height), width(width) {
#pragma unroll
    for (int i = 0; i < PER; i++) {
      int64_t pixel = first + (i * THREADS + (int)threadIdx.x) / 8;
      int64_t row = pixel / out_width, image = row / out_height;
      x[i] = (int)(pixel - row * out_width) * SW - left;
      y[i] = pixel < pixels ? (int)(row - image * out_height) * SH - top : -(1 << 29);
      start[i] = image * height * width * CHANNELS;
    }
  }
  __device__ __forceinline__ void copy(unsigned char *tile, int step) const {
#pragma unroll
    for (int i = 0; i < PER; i++) {
      int place = i * THREADS + (int)threadIdx.x, row = place / 8, chunk = place % 8;
      int k = step * (128 / (int)sizeof(T)) + chunk * (16 / (int)sizeof(T));
      int tap = k / CHANNELS, down = y[i] + tap / KW * DH, right = x[i] + tap % KW * DW;
      bool inside = k < KH * KW * CHANNELS && down >= 0 && right >= 0 && down % LH == 0 && right % LW == 0 &&
                    down / LH < height && right / LW < width;
      const T *from = base + start[i] + ((int64_t)(down / LH) * width + right / LW) * CHANNELS + k % CHANNELS;
      graphc_cp_async_16(tile + graphc_swizzled(row, chunk), inside ? from : base, inside ? 16 : 0);
    }
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
