
/* ---- Tensor cores and asynchronous copies (PTX ISA, "Warp-level matrix instructions", "cp.async"). ---- */

#ifndef GRAPHC_EMULATED
GRAPHC_INLINE unsigned int graphc_shared_address(const void *p) { return (unsigned int)__cvta_generic_to_shared(p); }
/* Four 8 x 8 matrices of 16-bit elements: lane 8 i + r names row r of matrix i. */
GRAPHC_INLINE void graphc_ldmatrix_x4(unsigned int *to, const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(graphc_shared_address(row))
               : "memory");
}
GRAPHC_INLINE void graphc_ldmatrix_x4_trans(unsigned int *to, const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(graphc_shared_address(row))
               : "memory");
}
#define GRAPHC_MMA(name, shape)                                                                                        \
  GRAPHC_INLINE void name(float *d, const unsigned int *a, const unsigned int *b) {                                    \
    asm volatile("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"          \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                  \
  }
GRAPHC_MMA(graphc_mma_bf16_m16n8k16, "m16n8k16.row.col.f32.bf16.bf16.f32")
GRAPHC_MMA(graphc_mma_f16_m16n8k16, "m16n8k16.row.col.f32.f16.f16.f32")
GRAPHC_MMA(graphc_mma_tf32_m16n8k8, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef GRAPHC_MMA
GRAPHC_INLINE unsigned int graphc_to_tf32(float x) {
  unsigned int bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}
/* Copies 16 bytes to shared memory, of which `bytes` are read and the rest is zeros. */
GRAPHC_INLINE void graphc_cp_async_16(void *to, const void *from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(graphc_shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
GRAPHC_INLINE void graphc_cp_async_4(void *to, const void *from, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
               :
               : "r"(graphc_shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
GRAPHC_INLINE void graphc_cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
GRAPHC_INLINE void graphc_cp_async_wait_0() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }
GRAPHC_INLINE void graphc_cp_async_wait_1() { asm volatile("cp.async.wait_group 1;" ::: "memory"); }
GRAPHC_INLINE void graphc_cp_async_wait_2() { asm volatile("cp.async.wait_group 2;" ::: "memory"); }
#endif

template <int GROUPS> GRAPHC_INLINE void graphc_cp_async_wait() {
  if (GROUPS == 0) graphc_cp_async_wait_0();
  if (GROUPS == 1) graphc_cp_async_wait_1();
  if (GROUPS == 2) graphc_cp_async_wait_2();
}

/* ---- Tiles in shared memory: rows of 128 bytes along K, whose 16-byte chunks are permuted so that neither copies nor
 * ldmatrix meet bank conflicts. ---- */

GRAPHC_INLINE int graphc_swizzled(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

/* Rows of a matrix whose K elements are neighbours, all starting on 16 bytes. Beyond the last row and K are zeros. */
template <typename T, int ROWS, int THREADS> struct graphc_rows {
  const T *base;
  int64_t stride;
  int rows, depth;
  __device__ __forceinline__ graphc_rows(const void *base, int64_t stride, int64_t rows, int64_t depth)
      : base((const T *)base), stride(stride), rows(rows < ROWS ? (int)rows : ROWS), depth((int)depth) {}
  __device__ __forceinline__ void copy(unsigned char *tile, int step) const {
#pragma unroll
    for (int i = 0; i < ROWS * 8 / THREADS; i++) {
      int place = i * THREADS + (int)threadIdx.x, row = place / 8, chunk = place % 8;
      int k = step * (128 / (int)sizeof(T)) + chunk * (16 / (int)sizeof(T));
      bool inside = row < rows && k < depth;
      graphc_cp_async_16(tile + graphc_swizzled(row, chunk), inside ? base + row * stride + k : base, inside ? 16 : 0);
    }
  }
};

/* Any matrix, element by element; neighbouring threads take neighbouring rows where ALONG_ROWS, else neighbouring K. */
template <typename T, int ROWS, int THREADS, bool ALONG_ROWS> struct graphc_elements {
  const T *base;
  int64_t row_stride, k_stride;
  int rows, depth;
  __device__ __forceinline__ graphc_elements(const void *base, int64_t row_stride, int64_t k_stride, int64_t rows,
                                             int64_t depth)
      : base((const T *)base), row_stride(row_stride), k_stride(k_stride), rows(rows < ROWS ? (int)rows : ROWS),
        depth((int)depth) {}
  __device__ __forceinline__ void copy(unsigned char *tile, int step) const {
    constexpr int WIDTH = 128 / (int)sizeof(T), CHUNK = 16 / (int)sizeof(T);
#pragma unroll 8
    for (int i = 0; i < ROWS * WIDTH / THREADS; i++) {
      int place = i * THREADS + (int)threadIdx.x;
      int row = ALONG_ROWS ? place % ROWS : place / WIDTH, column = ALONG_ROWS ? place / ROWS : place % WIDTH;
      int k = step * WIDTH + column;
      bool inside = row < rows && k < depth;
      T *to = (T *)(tile + graphc_swizzled(row, column / CHUNK)) + column % CHUNK;
      const T *from = inside ? base + row * row_stride + k * k_stride : base;
      if (sizeof(T) == 4)
        graphc_cp_async_4(to, from, inside ? 4 : 0);
      else
        *to = inside ? *from : T(0);
    }
  }
};

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

/* ---- What one step of K does with two tiles. ---- */

/* Warps of WM x WN cover the tile; lane l has rows l / 4 (+ 8) and columns l % 4 * 2 (+ 1) of each 16 x 8. */
template <typename Product, int BM, int BN, int WM, int WN> struct graphc_on_tensor_cores {
  static constexpr int MT = BM / WM / 16, NT = BN / WN / 8;
  template <bool SLOW_A, bool SLOW_B>
  static __device__ __forceinline__ void step(float *sums, const unsigned char *a, const unsigned char *b) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int m0 = warp % WM * (BM / WM), n0 = warp / WM * (BN / WN);
#pragma unroll
    for (int kk = 0; kk < 4; kk++) {
      unsigned int left[MT][4], right[NT][2];
#pragma unroll
      for (int i = 0; i < MT; i++)
        if (SLOW_A)
          graphc_ldmatrix_x4_trans(left[i], graphc_slow_row(a, kk * 16 + lane / 16 * 8 + lane % 8,
                                                            (m0 + i * 16) / 8 + lane / 8 % 2));
        else
          graphc_ldmatrix_x4(left[i], a + graphc_swizzled(m0 + i * 16 + lane % 16, kk * 2 + lane / 16));
#pragma unroll
      for (int j = 0; j < NT; j += 2) {
        unsigned int both[4];
        if (SLOW_B)
          graphc_ldmatrix_x4_trans(both, graphc_slow_row(b, kk * 16 + lane / 8 % 2 * 8 + lane % 8,
                                                         n0 / 8 + j + lane / 16));
        else
          graphc_ldmatrix_x4(both, b + graphc_swizzled(n0 + j * 8 + lane / 16 * 8 + lane % 8, kk * 2 + lane / 8 % 2));
        right[j][0] = both[0], right[j][1] = both[1], right[j + 1][0] = both[2], right[j + 1][1] = both[3];
      }
      Product::template prepare<MT * 4>(&left[0][0]);
      Product::template prepare<NT * 2>(&right[0][0]);
#pragma unroll
      for (int i = 0; i < MT; i++)
#pragma unroll
        for (int j = 0; j < NT; j++) Product::multiply(sums + (i * NT + j) * 4, left[i], right[j]);
    }
  }
};
struct graphc_bf16 {
  template <int N> static __device__ __forceinline__ void prepare(unsigned int *) {}
  static __device__ __forceinline__ void multiply(float *d, const unsigned int *a, const unsigned int *b) {
    graphc_mma_bf16_m16n8k16(d, a, b);
  }
};
struct graphc_f16 {
  template <int N> static __device__ __forceinline__ void prepare(unsigned int *) {}
  static __device__ __forceinline__ void multiply(float *d, const unsigned int *a, const unsigned int *b) {
    graphc_mma_f16_m16n8k16(d, a, b);
  }
};
struct graphc_tf32 {
  template <int N> static __device__ __forceinline__ void prepare(unsigned int *x) {
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = graphc_to_tf32(__uint_as_float(x[i]));
  }
  static __device__ __forceinline__ void multiply(float *d, const unsigned int *a, const unsigned int *b) {
    graphc_mma_tf32_m16n8k8(d, a, b);
  }
};

/* Threads of 16 x (THREADS / 16) cover the tile: a thread has every 16th row and column. */
template <int BM, int BN, int THREADS> struct graphc_on_plain_units {
  static constexpr int ROWS = 16, COLUMNS = THREADS / 16, MT = BM / ROWS, NT = BN / COLUMNS;
  template <bool, bool>
  static __device__ __forceinline__ void step(float *sums, const unsigned char *a, const unsigned char *b) {
    int y = (int)threadIdx.x / COLUMNS, x = (int)threadIdx.x % COLUMNS;
#pragma unroll 2
    for (int chunk = 0; chunk < 8; chunk++) {
      float4 left[MT];
#pragma unroll
      for (int i = 0; i < MT; i++) left[i] = *(const float4 *)(a + graphc_swizzled(i * ROWS + y, chunk));
#pragma unroll
      for (int j = 0; j < NT; j++) {
        float4 right = *(const float4 *)(b + graphc_swizzled(j * COLUMNS + x, chunk));
#pragma unroll
        for (int i = 0; i < MT; i++) {
          float sum = sums[i * NT + j];
          sum = fmaf(left[i].x, right.x, sum);
          sum = fmaf(left[i].y, right.y, sum);
          sum = fmaf(left[i].z, right.z, sum);
          sums[i * NT + j] = fmaf(left[i].w, right.w, sum);
        }
      }
    }
  }
};

/* ---- The loop over K: STAGES tiles of each operand, of which all but one are on their way. ---- */

template <typename Units, int BM, int BN, int STAGES, int SUMS, typename A, typename B>
GRAPHC_INLINE void graphc_multiply(float *sums, const A &a, const B &b, int steps) {
  extern __shared__ __align__(128) unsigned char graphc_dynamic[];
  constexpr int STAGE = (BM + BN) * 128;
#pragma unroll
  for (int i = 0; i < SUMS; i++) sums[i] = 0.0f;
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) {
      a.copy(graphc_dynamic + s * STAGE, s);
      b.copy(graphc_dynamic + s * STAGE + BM * 128, s);
    }
    graphc_cp_async_commit();
  }
  for (int step = 0; step < steps; step++) {
    graphc_cp_async_wait<STAGES - 2>();
    __syncthreads();
    int next = step + STAGES - 1;
    if (next < steps) {
      unsigned char *to = graphc_dynamic + next % STAGES * STAGE;
      a.copy(to, next);
      b.copy(to + BM * 128, next);
    }
    graphc_cp_async_commit();
    const unsigned char *now = graphc_dynamic + step % STAGES * STAGE;
    Units::template step<graphc_is_slow<A>::value, graphc_is_slow<B>::value>(sums, now, now + BM * 128);
  }
}
