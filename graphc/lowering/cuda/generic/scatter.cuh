
/* ---- Adding rows at positions: the gradient of an embedding. A block has one update; where it is the first of its
 * position, it adds all of that position's, in their order. Nothing is atomic. ---- */

template <int THREADS, typename Index, typename Update, typename Stored, typename Sum>
GRAPHC_INLINE void graphc_add_rows(void *result, const void *updates, const Index *positions, int64_t count,
                                   int64_t rows, int64_t inner, int64_t update, int64_t outer, int64_t first,
                                   void *fault, int64_t fault_id) {
  __shared__ int flags[THREADS];
  __shared__ int seen;
  int thread = (int)threadIdx.x;
  int64_t at = (int64_t)positions[update], column = first + thread;
  if (at < 0 || at >= rows) { /* the same for the whole block */
    if (thread == 0) graphc_fault(fault, fault_id, at, update, rows);
    return;
  }
  if (thread == 0) seen = 0;
  __syncthreads();
  for (int64_t other = thread; other < update; other += THREADS)
    if ((int64_t)positions[other] == at) seen = 1;
  __syncthreads();
  int earlier = seen;
  __syncthreads();
  if (earlier) return;
  const typename Update::type *from = (const typename Update::type *)updates + outer * count * inner + column;
  Sum sum = column < inner ? Update::widen(from[update * inner]) : Sum(0);
  for (int64_t next = update + 1; next < count; next += THREADS) {
    int64_t mine = next + thread;
    flags[thread] = mine < count && (int64_t)positions[mine] == at;
    if (flags[thread]) seen = 1;
    __syncthreads();
    if (seen && column < inner)
      for (int i = 0; i < THREADS; i++)
        if (flags[i]) sum += Update::widen(from[(next + i) * inner]);
    __syncthreads();
    if (thread == 0) seen = 0;
    __syncthreads();
  }
  if (column < inner) {
    typename Stored::type *to = (typename Stored::type *)result + (outer * rows + at) * inner + column;
    *to = Stored::narrow(Stored::widen(*to) + sum);
  }
}
