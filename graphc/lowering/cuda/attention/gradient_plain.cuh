
/* ---- The same on plain units, in f32, for operands that lie anyhow: tiles of 32 x 32, a thread has 4 x 2 of the scores
 * and 4 rows of what is summed. ---- */

/* Rows of one head: `stored` elements at strides. */
template <typename Stored> struct graphc_strided {
  const typename Stored::type *base;
  int64_t row_stride, stride;
  __device__ __forceinline__ graphc_strided(const void *base, int64_t row_stride, int64_t stride)
      : base((const typename Stored::type *)base), row_stride(row_stride), stride(stride) {}
  __device__ __forceinline__ float at(int64_t row, int column) const {
    return Stored::widen(base[row * row_stride + column * stride]);
  }
  /* 32 rows to shared memory, zeros behind the last. */
  template <int WIDTH> __device__ __forceinline__ void copy(float *to, int64_t first, int64_t rows) const {
    for (int place = (int)threadIdx.x; place < 32 * WIDTH; place += 128) {
      int row = place / WIDTH, column = place % WIDTH;
      to[row * (WIDTH | 1) + column] = first + row < rows ? at(first + row, column) : 0.0f;
    }
  }
};

/* sums[i][j] += row 4 y + i of one tile times row x + 16 j of another. */
template <int WIDTH> GRAPHC_INLINE void graphc_plain_rows(float (*sums)[2], const float *a, const float *b) {
  constexpr int PITCH = WIDTH | 1;
  int y = (int)threadIdx.x / 16, x = (int)threadIdx.x % 16;
#pragma unroll 4
  for (int k = 0; k < WIDTH; k++) {
    float right[2] = {b[x * PITCH + k], b[(x + 16) * PITCH + k]};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float left = a[(y * 4 + i) * PITCH + k];
      sums[i][0] = fmaf(left, right[0], sums[i][0]);
      sums[i][1] = fmaf(left, right[1], sums[i][1]);
    }
  }
}
/* sums[i][c] += row 4 y + i of the weights times the elements x + 16 c of a tile's rows. */
template <int WIDTH>
GRAPHC_INLINE void graphc_plain_weights(float (*sums)[(WIDTH + 15) / 16], const float *weights, const float *tile) {
  constexpr int PITCH = WIDTH | 1;
  int y = (int)threadIdx.x / 16, x = (int)threadIdx.x % 16;
#pragma unroll 2
  for (int k = 0; k < 32; k++)
#pragma unroll
    for (int c = 0; c < (WIDTH + 15) / 16; c++) {
      float right = x + c * 16 < WIDTH ? tile[k * PITCH + x + c * 16] : 0.0f;
#pragma unroll
      for (int i = 0; i < 4; i++) sums[i][c] = fmaf(weights[(y * 4 + i) * 33 + k], right, sums[i][c]);
    }
}
template <typename Out, int WIDTH>
GRAPHC_INLINE void graphc_plain_store(void *to, int64_t stride, float (*sums)[(WIDTH + 15) / 16], int64_t first, int64_t rows,
                                      const float *factor) {
  int y = (int)threadIdx.x / 16, x = (int)threadIdx.x % 16;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int c = 0; c < (WIDTH + 15) / 16; c++)
      if (first + y * 4 + i < rows && x + c * 16 < WIDTH)
        ((typename Out::type *)to)[(first + y * 4 + i) * stride + x + c * 16] = Out::narrow(sums[i][c] * factor[i]);
}

template <typename Out, int DEPTH, int WIDTH, bool CAUSAL, typename Q, typename K, typename V, typename R, typename G,
          typename Mask>
GRAPHC_INLINE void graphc_plain_back_to_queries(void *dq, int64_t dq_stride, void *rows, int64_t first, const Q &q, const K &k, const V &v,
                                                const R &result, const G &given, int64_t queries, int64_t keys,
                                                float scale, const Mask &mask) {
  extern __shared__ __align__(128) unsigned char graphc_dynamic[];
  __shared__ float weights[32 * 33], products[32];
  float *qt = (float *)graphc_dynamic, *gt = qt + 32 * (DEPTH | 1), *kt = gt + 32 * (WIDTH | 1),
        *vt = kt + 32 * (DEPTH | 1);
  int thread = (int)threadIdx.x, y = thread / 16, x = thread % 16;
  q.template copy<DEPTH>(qt, first, queries);
  given.template copy<WIDTH>(gt, first, queries);
  float both = 0.0f;
  if (first + thread / 4 < queries)
    for (int e = thread % 4; e < WIDTH; e += 4)
      both = fmaf(result.at(first + thread / 4, e), given.at(first + thread / 4, e), both);
  both = graphc_quad_sum(both);
  if (thread % 4 == 0) products[thread / 4] = both;
  float sums[4][(DEPTH + 15) / 16], top[4], total[4], factor[4];
  graphc_clear<4 * ((DEPTH + 15) / 16)>(&sums[0][0]);
#pragma unroll
  for (int i = 0; i < 4; i++) top[i] = -CUDART_INF_F, total[i] = 0.0f;
  int64_t end = CAUSAL && first + 32 < keys ? first + 32 : keys;
  for (int64_t key0 = 0; key0 < end; key0 += 32) {
    __syncthreads();
    k.template copy<DEPTH>(kt, key0, keys);
    v.template copy<WIDTH>(vt, key0, keys);
    __syncthreads();
    float scores[4][2] = {}, change[4][2] = {};
    graphc_plain_rows<DEPTH>(scores, qt, kt);
    graphc_plain_rows<WIDTH>(change, gt, vt);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int64_t query = first + y * 4 + i;
      float high = top[i];
#pragma unroll
      for (int j = 0; j < 2; j++) {
        int64_t key = key0 + x + j * 16;
        bool seen = key < keys && query < queries && !(CAUSAL && key > query);
        scores[i][j] = seen ? mask(scores[i][j] * (scale * GRAPHC_LOG2E), query, key) : -CUDART_INF_F;
        high = graphc_max(high, scores[i][j]);
      }
#pragma unroll
      for (int step = 8; step > 0; step /= 2) high = graphc_max(high, __shfl_xor_sync(0xffffffffu, high, step));
      float zero = high == -CUDART_INF_F ? 0.0f : high, shrink = exp2f(top[i] - zero);
      top[i] = high;
      total[i] *= shrink;
#pragma unroll
      for (int c = 0; c < (DEPTH + 15) / 16; c++) sums[i][c] *= shrink;
#pragma unroll
      for (int j = 0; j < 2; j++) {
        float weight = exp2f(scores[i][j] - zero);
        total[i] += weight;
        weights[(y * 4 + i) * 33 + x + j * 16] = weight * (change[i][j] - products[y * 4 + i]);
      }
    }
    __syncthreads();
    graphc_plain_weights<DEPTH>(sums, weights, kt);
  }
  __syncthreads(); /* the products, where there was no key */
#pragma unroll
  for (int i = 0; i < 4; i++) {
#pragma unroll
    for (int step = 8; step > 0; step /= 2) total[i] += __shfl_xor_sync(0xffffffffu, total[i], step);
    bool none = total[i] == 0.0f; /* nothing seen: no weight, and zeros */
    factor[i] = none ? 0.0f : scale / total[i];
    if (x == 0 && first + y * 4 + i < queries) {
      float *row = (float *)rows + (first + y * 4 + i) * 2;
      row[0] = none ? CUDART_INF_F : top[i] + log2f(total[i]);
      row[1] = products[y * 4 + i];
    }
  }
  graphc_plain_store<Out, DEPTH>(dq, dq_stride, sums, first, queries, factor);
}

template <typename Out, int DEPTH, int WIDTH, bool CAUSAL, typename Q, typename K, typename V, typename G,
          typename Mask>
GRAPHC_INLINE void graphc_plain_back_to_keys(void *dk, int64_t dk_stride, void *dv, int64_t dv_stride, const void *rows, int64_t first, const Q &q,
                                             const K &k, const V &v, const G &given, int64_t queries, int64_t keys,
                                             float scale, const Mask &mask) {
  extern __shared__ __align__(128) unsigned char graphc_dynamic[];
  __shared__ float weights[32 * 33], changes[32 * 33];
  float *qt = (float *)graphc_dynamic, *gt = qt + 32 * (DEPTH | 1), *kt = gt + 32 * (WIDTH | 1),
        *vt = kt + 32 * (DEPTH | 1);
  int y = (int)threadIdx.x / 16, x = (int)threadIdx.x % 16;
  k.template copy<DEPTH>(kt, first, keys);
  v.template copy<WIDTH>(vt, first, keys);
  float key_sums[4][(DEPTH + 15) / 16], value_sums[4][(WIDTH + 15) / 16];
  graphc_clear<4 * ((DEPTH + 15) / 16)>(&key_sums[0][0]);
  graphc_clear<4 * ((WIDTH + 15) / 16)>(&value_sums[0][0]);
  for (int64_t query0 = CAUSAL ? first : 0; query0 < queries; query0 += 32) {
    __syncthreads();
    q.template copy<DEPTH>(qt, query0, queries);
    given.template copy<WIDTH>(gt, query0, queries);
    __syncthreads();
    float scores[4][2] = {}, change[4][2] = {};
    graphc_plain_rows<DEPTH>(scores, kt, qt);
    graphc_plain_rows<WIDTH>(change, vt, gt);
#pragma unroll
    for (int j = 0; j < 2; j++) {
      int64_t query = query0 + x + j * 16;
      const float *edge = (const float *)rows + query * 2;
      float log = query < queries ? edge[0] : 0.0f, both = query < queries ? edge[1] : 0.0f;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int64_t key = first + y * 4 + i;
        bool seen = key < keys && query < queries && !(CAUSAL && key > query);
        float weight = seen ? exp2f(mask(scores[i][j] * (scale * GRAPHC_LOG2E), query, key) - log) : 0.0f;
        weights[(y * 4 + i) * 33 + x + j * 16] = weight;
        changes[(y * 4 + i) * 33 + x + j * 16] = weight * (change[i][j] - both);
      }
    }
    __syncthreads();
    graphc_plain_weights<WIDTH>(value_sums, weights, gt);
    graphc_plain_weights<DEPTH>(key_sums, changes, qt);
  }
  float scaled[4] = {scale, scale, scale, scale}, plain[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  graphc_plain_store<Out, DEPTH>(dk, dk_stride, key_sums, first, keys, scaled);
  graphc_plain_store<Out, WIDTH>(dv, dv_stride, value_sums, first, keys, plain);
}
