
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
