
/* ---- Attention backwards on tensor cores (FlashAttention-2, Dao 2023), without atomics: one kernel has queries and
 * goes over the keys, one has keys and goes over the queries; both compute the scores again. ---- */

/* The operands: first elements of one head, and strides between rows. */
struct graphc_attended {
  const void *q, *k, *v, *result, *given;
  int64_t q_stride, k_stride, v_stride, result_stride, given_stride, queries, keys;
  float scale;
  __device__ __forceinline__ graphc_attended(const void *q, const void *k, const void *v, const void *result,
                                             const void *given, int64_t q_stride, int64_t k_stride, int64_t v_stride,
                                             int64_t result_stride, int64_t given_stride, int64_t queries,
                                             int64_t keys, float scale)
      : q(q), k(k), v(v), result(result), given(given), q_stride(q_stride), k_stride(k_stride), v_stride(v_stride),
        result_stride(result_stride), given_stride(given_stride), queries(queries), keys(keys), scale(scale) {}
};

/* Rows `stride` elements apart, from what products leave: elements 8 j + 2 (lane % 4) and the next of `sums`. */
template <typename Out, int WIDTH>
GRAPHC_INLINE void graphc_store_rows(void *to, int64_t stride, const float *sums, int64_t row0, int64_t rows, const float *factor) {
  int lane = (int)threadIdx.x % 32;
#pragma unroll
  for (int h = 0; h < 2; h++)
    if (row0 + h * 8 < rows) {
      typename Out::type *row = (typename Out::type *)to + (row0 + h * 8) * stride + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < WIDTH / 8; j++) {
        typename Out::type both[2] = {Out::narrow(sums[j * 4 + h * 2] * factor[h]),
                                      Out::narrow(sums[j * 4 + h * 2 + 1] * factor[h])};
        if (sizeof(both) == 8)
          graphc_copy_8(row + j * 8, both);
        else
          graphc_copy_4(row + j * 8, both);
      }
    }
}

/* dq of 64 queries, over KEYS keys at a time; and what the other kernel needs of each, in `rows`: log2 of its sum of powers, and the sum of its
 * result times the cotangent. Scores are weighed by powers of the largest so far, as in the forward direction. */
template <typename Product, typename Stored, typename Out, int DEPTH, int WIDTH, bool CAUSAL, int KEYS, typename Mask>
GRAPHC_INLINE void graphc_attend_back_to_queries(void *dq, int64_t dq_stride, void *rows, int64_t first, const graphc_attended &x,
                                                 const Mask &mask) {
  extern __shared__ __align__(128) unsigned char graphc_dynamic[];
  constexpr int QK = (DEPTH + 63) / 64 * 64 * 128, V = (WIDTH + 63) / 64 * 64 * 128;
  constexpr int K = QK / 64 * KEYS, STAGE = K + V / 64 * KEYS, COUNT = KEYS / 8;
  const unsigned short *k = (const unsigned short *)x.k, *v = (const unsigned short *)x.v;
  const unsigned short *result = (const unsigned short *)x.result, *given = (const unsigned short *)x.given;
  unsigned char *qt = graphc_dynamic, *gt = qt + QK, *stages = gt + V;
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  int64_t row0 = first + warp * 16 + lane / 4;
  int64_t end = CAUSAL && first + 64 < x.keys ? first + 64 : x.keys;
  int below = (int)(x.queries - row0);
  int tiles = (int)((end + KEYS - 1) / KEYS);
  float base2 = x.scale * GRAPHC_LOG2E;
  graphc_copy_panels<64, DEPTH>(qt, (const unsigned short *)x.q + first * x.q_stride, x.q_stride, x.queries - first);
  graphc_copy_panels<64, WIDTH>(gt, given + first * x.given_stride, x.given_stride, x.queries - first);
  graphc_copy_panels<KEYS, DEPTH>(stages, k, x.k_stride, x.keys);
  graphc_copy_panels<KEYS, WIDTH>(stages + K, v, x.v_stride, x.keys);
  graphc_cp_async_commit();
  float sums[DEPTH / 2], top[2] = {-CUDART_INF_F, -CUDART_INF_F}, total[2] = {0.0f, 0.0f}, both[2] = {0.0f, 0.0f};
  graphc_clear<DEPTH / 2>(sums);
#pragma unroll
  for (int h = 0; h < 2; h++) {
    int64_t row = row0 + h * 8;
    if (row < x.queries)
#pragma unroll 4
      for (int j = 0; j < WIDTH / 8; j++) {
        unsigned short a[2], b[2];
        graphc_copy_4(a, result + row * x.result_stride + j * 8 + lane % 4 * 2);
        graphc_copy_4(b, given + row * x.given_stride + j * 8 + lane % 4 * 2);
        both[h] = fmaf(Stored::widen(a[0]), Stored::widen(b[0]), both[h]);
        both[h] = fmaf(Stored::widen(a[1]), Stored::widen(b[1]), both[h]);
      }
    both[h] = graphc_quad_sum(both[h]);
  }
  for (int tile = 0; tile < tiles; tile++) {
    int64_t key0 = (int64_t)tile * KEYS, next = key0 + KEYS;
    if (tile + 1 < tiles) {
      unsigned char *to = stages + (tile + 1) % 2 * STAGE;
      graphc_copy_panels<KEYS, DEPTH>(to, k + next * x.k_stride, x.k_stride, x.keys - next);
      graphc_copy_panels<KEYS, WIDTH>(to + K, v + next * x.v_stride, x.v_stride, x.keys - next);
    }
    graphc_cp_async_commit();
    graphc_cp_async_wait<1>();
    __syncthreads();
    const unsigned char *kt = stages + tile % 2 * STAGE, *vt = kt + K;
    int beside = (int)(x.keys - key0);
    float scores[COUNT][4], change[COUNT][4], zero[2];
    graphc_clear<COUNT * 4>(&scores[0][0]);
    graphc_clear<COUNT * 4>(&change[0][0]);
    graphc_rows_by_rows<Product, DEPTH, KEYS>(scores, qt, warp * 16, kt);
    graphc_rows_by_rows<Product, WIDTH, KEYS>(change, gt, warp * 16, vt);
    graphc_raise<CAUSAL, COUNT, DEPTH>(scores, mask, base2, row0, key0, below, beside, top, zero, total, sums);
#pragma unroll
    for (int j = 0; j < COUNT; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float weight = exp2f(scores[j][i] - zero[i / 2]);
        total[i / 2] += weight;
        scores[j][i] = weight * (change[j][i] - both[i / 2]);
      }
    graphc_weights_by_rows<Product, KEYS, DEPTH>(sums, scores, kt);
    __syncthreads();
  }
  graphc_cp_async_wait<0>();
  float factor[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    total[h] = graphc_quad_sum(total[h]);
    bool none = total[h] == 0.0f; /* nothing seen: no weight, and zeros */
    factor[h] = none ? 0.0f : x.scale / total[h];
    if (lane % 4 == 0 && row0 + h * 8 < x.queries) {
      float *row = (float *)rows + (row0 + h * 8) * 2;
      row[0] = none ? CUDART_INF_F : top[h] + log2f(total[h]);
      row[1] = both[h];
    }
  }
  graphc_store_rows<Out, DEPTH>(dq, dq_stride, sums, row0, x.queries, factor);
}

/* dk and dv of 64 keys, over QUERIES queries at a time: rows are keys, columns queries. */
template <typename Product, typename Stored, typename Out, int DEPTH, int WIDTH, bool CAUSAL, int QUERIES,
          typename Mask>
GRAPHC_INLINE void graphc_attend_back_to_keys(void *dk, int64_t dk_stride, void *dv, int64_t dv_stride, const void *rows, int64_t first,
                                              const graphc_attended &x, const Mask &mask) {
  extern __shared__ __align__(128) unsigned char graphc_dynamic[];
  __shared__ float edges[2][QUERIES * 2];
  constexpr int K = (DEPTH + 63) / 64 * 64 * 128, V = (WIDTH + 63) / 64 * 64 * 128;
  constexpr int Q = K / 64 * QUERIES, STAGE = Q + V / 64 * QUERIES, COUNT = QUERIES / 8;
  const unsigned short *q = (const unsigned short *)x.q, *given = (const unsigned short *)x.given;
  unsigned char *kt = graphc_dynamic, *vt = kt + K, *stages = vt + V;
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, thread = (int)threadIdx.x;
  int64_t row0 = first + warp * 16 + lane / 4;
  int below = (int)(x.keys - row0);
  int begin = CAUSAL ? (int)(first / QUERIES) : 0, end = (int)((x.queries + QUERIES - 1) / QUERIES);
  float base2 = x.scale * GRAPHC_LOG2E;
  graphc_copy_panels<64, DEPTH>(kt, (const unsigned short *)x.k + first * x.k_stride, x.k_stride, x.keys - first);
  graphc_copy_panels<64, WIDTH>(vt, (const unsigned short *)x.v + first * x.v_stride, x.v_stride, x.keys - first);
  float key_sums[DEPTH / 2], value_sums[WIDTH / 2];
  graphc_clear<DEPTH / 2>(key_sums);
  graphc_clear<WIDTH / 2>(value_sums);
  for (int tile = begin - 1; tile < end; tile++) {
    int64_t now = (int64_t)tile * QUERIES, next = now + QUERIES;
    if (tile + 1 < end) { /* the next one is on its way */
      unsigned char *to = stages + (tile + 1) % 2 * STAGE;
      graphc_copy_panels<QUERIES, DEPTH>(to, q + next * x.q_stride, x.q_stride, x.queries - next);
      graphc_copy_panels<QUERIES, WIDTH>(to + Q, given + next * x.given_stride, x.given_stride, x.queries - next);
      if (thread < QUERIES * 2)
        edges[(tile + 1) % 2][thread] = next + thread / 2 < x.queries ? ((const float *)rows)[next * 2 + thread]
                                        : thread % 2 == 0             ? CUDART_INF_F
                                                                      : 0.0f;
    }
    graphc_cp_async_commit();
    if (tile < begin) continue;
    graphc_cp_async_wait<1>();
    __syncthreads();
    const unsigned char *qt = stages + tile % 2 * STAGE, *gt = qt + Q;
    const float *edge = edges[tile % 2];
    int beside = (int)(x.queries - now), ahead = (int)(row0 - now);
    float weights[COUNT][4], change[COUNT][4];
    graphc_clear<COUNT * 4>(&weights[0][0]);
    graphc_rows_by_rows<Product, DEPTH, QUERIES>(weights, kt, warp * 16, qt);
#pragma unroll
    for (int j = 0; j < COUNT; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int row = i / 2 * 8, column = j * 8 + lane % 4 * 2 + i % 2;
        bool seen = row < below && column < beside && !(CAUSAL && row + ahead > column);
        weights[j][i] =
            seen ? exp2f(mask(weights[j][i] * base2, now + column, row0 + row) - edge[column * 2]) : 0.0f;
      }
    graphc_weights_by_rows<Product, QUERIES, WIDTH>(value_sums, weights, gt);
    graphc_clear<COUNT * 4>(&change[0][0]);
    graphc_rows_by_rows<Product, WIDTH, QUERIES>(change, vt, warp * 16, gt);
#pragma unroll
    for (int j = 0; j < COUNT; j++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        change[j][i] = weights[j][i] * (change[j][i] - edge[(j * 8 + lane % 4 * 2 + i % 2) * 2 + 1]);
    graphc_weights_by_rows<Product, QUERIES, DEPTH>(key_sums, change, qt);
    __syncthreads();
  }
  graphc_cp_async_wait<0>();
  float scaled[2] = {x.scale, x.scale}, plain[2] = {1.0f, 1.0f};
  graphc_store_rows<Out, DEPTH>(dk, dk_stride, key_sums, row0, x.keys, scaled);
  graphc_store_rows<Out, WIDTH>(dv, dv_stride, value_sums, row0, x.keys, plain);
}
