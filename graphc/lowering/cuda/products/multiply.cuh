
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
