
/* ---- Attention on tensor cores (FlashAttention-2, Dao 2023): a warp has 16 queries, a block 64; keys come in tiles
 * of 64. Rows lie in shared memory as in products: panels of 128 bytes, swizzled. ---- */

#ifdef GRAPHC_EMULATED
GRAPHC_INLINE unsigned int graphc_pack_bf16(float low, float high) {
  return (unsigned int)graphc_narrow_bf16(high) << 16 | graphc_narrow_bf16(low);
}
GRAPHC_INLINE unsigned int graphc_pack_f16(float low, float high) {
  return (unsigned int)graphc_narrow_f16(high) << 16 | graphc_narrow_f16(low);
}
#else
GRAPHC_INLINE unsigned int graphc_pack_bf16(float low, float high) {
  unsigned int both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
GRAPHC_INLINE unsigned int graphc_pack_f16(float low, float high) {
  unsigned int both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
#endif
GRAPHC_INLINE unsigned int graphc_pack(graphc_bf16, float low, float high) { return graphc_pack_bf16(low, high); }
GRAPHC_INLINE unsigned int graphc_pack(graphc_f16, float low, float high) { return graphc_pack_f16(low, high); }

/* ROWS rows of up to 128 elements, in panels of 64. */
template <int ROWS, int WIDTH>
GRAPHC_INLINE void graphc_copy_panels(unsigned char *to, const void *from, int64_t stride, int64_t rows) {
  graphc_rows<unsigned short, ROWS, 128> loader(from, stride, rows, WIDTH);
#pragma unroll
  for (int panel = 0; panel < (WIDTH + 63) / 64; panel++) loader.copy(to + panel * ROWS * 128, panel);
}
template <int ROWS> GRAPHC_INLINE const unsigned char *graphc_in_panels(const unsigned char *tile, int row, int chunk) {
  return tile + chunk / 8 * (ROWS * 128) + graphc_swizzled(row, chunk % 8);
}

/* sums += 16 rows of a tile of 64, from row `first` on, times COLUMNS rows of another, over their DEPTH elements. */
template <typename Product, int DEPTH, int COLUMNS>
GRAPHC_INLINE void graphc_rows_by_rows(float (*sums)[4], const unsigned char *left, int first,
                                       const unsigned char *right) {
  int lane = (int)threadIdx.x % 32;
#pragma unroll(COLUMNS < 64 ? 2 : 8) /* where the sums of wide heads leave few registers */
  for (int kk = 0; kk < (DEPTH + 15) / 16; kk++) {
    unsigned int a[4];
    graphc_ldmatrix_x4(a, graphc_in_panels<64>(left, first + lane % 16, kk * 2 + lane / 16));
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j += 2) {
      unsigned int b[4];
      graphc_ldmatrix_x4(b, graphc_in_panels<COLUMNS>(right, j * 8 + lane / 16 * 8 + lane % 8, kk * 2 + lane / 8 % 2));
      Product::multiply(sums[j], a, b);
      Product::multiply(sums[j + 1], a, b + 2);
    }
  }
}
/* sums += 16 x ROWS weights, as products leave them, times the ROWS rows of WIDTH elements of a tile. */
template <typename Product, int ROWS, int WIDTH>
GRAPHC_INLINE void graphc_weights_by_rows(float *sums, const float (*weights)[4], const unsigned char *tile) {
  int lane = (int)threadIdx.x % 32;
#pragma unroll
  for (int kk = 0; kk < ROWS / 16; kk++) {
    unsigned int a[4] = {graphc_pack(Product(), weights[2 * kk][0], weights[2 * kk][1]),
                         graphc_pack(Product(), weights[2 * kk][2], weights[2 * kk][3]),
                         graphc_pack(Product(), weights[2 * kk + 1][0], weights[2 * kk + 1][1]),
                         graphc_pack(Product(), weights[2 * kk + 1][2], weights[2 * kk + 1][3])};
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j += 2) {
      unsigned int b[4];
      graphc_ldmatrix_x4_trans(b, graphc_in_panels<ROWS>(tile, kk * 16 + lane / 8 % 2 * 8 + lane % 8, j + lane / 16));
      Product::multiply(sums + j * 4, a, b);
      if (j + 1 < WIDTH / 8) Product::multiply(sums + j * 4 + 4, a, b + 2);
    }
  }
}
template <int COUNT> GRAPHC_INLINE void graphc_clear(float *sums) {
#pragma unroll
  for (int i = 0; i < COUNT; i++) sums[i] = 0.0f;
}

/* Masks: a score times log2(e), as it counts; -inf where the key is hidden. Strides are in elements. */
#define GRAPHC_LOG2E 1.44269504088896340736f
struct graphc_no_mask {
  __device__ __forceinline__ float operator()(float score, int64_t, int64_t) const { return score; }
};
struct graphc_bool_mask {
  const unsigned char *base;
  int64_t query_stride, key_stride;
  __device__ __forceinline__ graphc_bool_mask(const void *base, int64_t query_stride, int64_t key_stride)
      : base((const unsigned char *)base), query_stride(query_stride), key_stride(key_stride) {}
  __device__ __forceinline__ float operator()(float score, int64_t query, int64_t key) const {
    return base[query * query_stride + key * key_stride] ? score : -CUDART_INF_F;
  }
};
template <typename Stored> struct graphc_added_mask {
  const typename Stored::type *base;
  int64_t query_stride, key_stride;
  __device__ __forceinline__ graphc_added_mask(const void *base, int64_t query_stride, int64_t key_stride)
      : base((const typename Stored::type *)base), query_stride(query_stride), key_stride(key_stride) {}
  __device__ __forceinline__ float operator()(float score, int64_t query, int64_t key) const {
    return score + GRAPHC_LOG2E * Stored::widen(base[query * query_stride + key * key_stride]);
  }
};

/* The largest, and the sum, of a row that four neighbouring lanes share. */
GRAPHC_INLINE float graphc_quad_max(float x) {
  x = graphc_max(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return graphc_max(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
GRAPHC_INLINE float graphc_quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* The next scores of a warp's rows, scaled and masked, as powers of two; their running maxima `top`, which exponents
 * count from as `zero`; and what was summed before, now counted from there. */
template <bool CAUSAL, int COUNT, int WIDTH, typename Mask>
GRAPHC_INLINE void graphc_raise(float (*scores)[4], const Mask &mask, float base2, int64_t row0, int64_t key0,
                                int below, int beside, float *top, float *zero, float *total, float *sums) {
  int lane = (int)threadIdx.x % 32, ahead = (int)(row0 - key0);
  float high[2] = {top[0], top[1]};
#pragma unroll
  for (int j = 0; j < COUNT; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int row = i / 2 * 8, column = j * 8 + lane % 4 * 2 + i % 2;
      bool seen = row < below && column < beside && !(CAUSAL && column > row + ahead);
      scores[j][i] = seen ? mask(scores[j][i] * base2, row0 + row, key0 + column) : -CUDART_INF_F;
      high[i / 2] = graphc_max(high[i / 2], scores[j][i]);
    }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    high[h] = graphc_quad_max(high[h]);
    zero[h] = high[h] == -CUDART_INF_F ? 0.0f : high[h];
    float factor = exp2f(top[h] - zero[h]);
    top[h] = high[h];
    total[h] *= factor;
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j++) sums[j * 4 + h * 2] *= factor, sums[j * 4 + h * 2 + 1] *= factor;
  }
}

/* sums[j][i]: columns 8 j + 2 (lane % 4) and the next of rows lane / 4 (i = 0, 1) and lane / 4 + 8 (i = 2, 3). */
template <typename Product, int DEPTH, int WIDTH, bool CAUSAL, typename Mask>
GRAPHC_INLINE void graphc_attend(float *sums, const void *q, const void *k, const void *v, int64_t q_stride,
                                 int64_t k_stride, int64_t v_stride, int64_t first, int64_t queries, int64_t keys,
                                 float scale, const Mask &mask) {
  extern __shared__ __align__(128) unsigned char graphc_dynamic[];
  constexpr int QK = (DEPTH + 63) / 64 * 64 * 128, V = (WIDTH + 63) / 64 * 64 * 128, STAGE = QK + V;
  unsigned char *stages = graphc_dynamic + QK;
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  int64_t row0 = first + warp * 16 + lane / 4;
  int64_t end = CAUSAL && first + 64 < keys ? first + 64 : keys;
  int below = (int)(queries - row0);
  int tiles = (int)((end + 63) / 64);
  float top[2] = {-CUDART_INF_F, -CUDART_INF_F}, total[2] = {0.0f, 0.0f};
  float base2 = scale * GRAPHC_LOG2E; /* exp(scale x) is exp2(base2 x) */
  graphc_clear<WIDTH / 2>(sums);
  graphc_copy_panels<64, DEPTH>(graphc_dynamic, q, q_stride, queries - first);
  if (tiles > 0) {
    graphc_copy_panels<64, DEPTH>(stages, k, k_stride, keys);
    graphc_copy_panels<64, WIDTH>(stages + QK, v, v_stride, keys);
  }
  graphc_cp_async_commit();
  for (int tile = 0; tile < tiles; tile++) {
    int64_t key0 = (int64_t)tile * 64, next = key0 + 64;
    if (tile + 1 < tiles) {
      unsigned char *to = stages + (tile + 1) % 2 * STAGE;
      graphc_copy_panels<64, DEPTH>(to, (const unsigned short *)k + next * k_stride, k_stride, keys - next);
      graphc_copy_panels<64, WIDTH>(to + QK, (const unsigned short *)v + next * v_stride, v_stride, keys - next);
    }
    graphc_cp_async_commit();
    graphc_cp_async_wait<1>();
    __syncthreads();
    const unsigned char *kt = stages + tile % 2 * STAGE, *vt = kt + QK;
    int beside = (int)(keys - key0);
    float scores[8][4];
    graphc_clear<32>(&scores[0][0]);
    graphc_rows_by_rows<Product, DEPTH, 64>(scores, graphc_dynamic, warp * 16, kt);
    float zero[2];
    graphc_raise<CAUSAL, 8, WIDTH>(scores, mask, base2, row0, key0, below, beside, top, zero, total, sums);
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        scores[j][i] = exp2f(scores[j][i] - zero[i / 2]);
        total[i / 2] += scores[j][i];
      }
    graphc_weights_by_rows<Product, 64, WIDTH>(sums, scores, vt);
    __syncthreads();
  }
  graphc_cp_async_wait<0>();
#pragma unroll
  for (int h = 0; h < 2; h++) {
    total[h] = graphc_quad_sum(total[h]);
    float factor = total[h] == 0.0f ? 0.0f : 1.0f / total[h]; /* nothing seen: zeros */
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j++) sums[j * 4 + h * 2] *= factor, sums[j * 4 + h * 2 + 1] *= factor;
  }
}
