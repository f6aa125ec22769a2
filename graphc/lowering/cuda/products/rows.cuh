
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
