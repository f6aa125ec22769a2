
/* ---- Stable sorting of a row by a block: runs of twice the length each time. An element's place in two merged runs is
 * its place in its own and the number of the other's elements that go before it, found by bisection. ---- */

template <bool DESCENDING, typename Key> GRAPHC_INLINE bool graphc_goes_before(Key a, Key b) {
  if (DESCENDING) {
    Key c = a;
    a = b, b = c;
  }
  return a < b || (b != b && a == a); /* NaN is the largest */
}

template <int THREADS, bool DESCENDING, typename Stored>
GRAPHC_INLINE void graphc_arg_sort(int64_t *result, void *scratch, const void *keys, int64_t start, int64_t stride,
                                   int64_t row, int64_t length) {
  const typename Stored::type *x = (const typename Stored::type *)keys + start;
  int64_t *from = (int64_t *)scratch + row * 2 * length, *to = from + length;
  for (int64_t i = threadIdx.x; i < length; i += THREADS) from[i] = i;
  __syncthreads();
  for (int64_t width = 1; width < length; width *= 2) {
    for (int64_t i = threadIdx.x; i < length; i += THREADS) {
      int64_t first = i / (2 * width) * (2 * width), middle = first + width, end = middle + width;
      middle = middle < length ? middle : length;
      end = end < length ? end : length;
      bool left = i < middle;
      int64_t low = left ? middle : first, high = left ? end : middle, mine = from[i];
      auto key = Stored::widen(x[mine * stride]);
      while (low < high) {
        int64_t at = (low + high) / 2;
        auto other = Stored::widen(x[from[at] * stride]);
        if (left ? graphc_goes_before<DESCENDING>(other, key) : !graphc_goes_before<DESCENDING>(key, other))
          low = at + 1;
        else
          high = at;
      }
      to[i - middle + low] = mine;
    }
    __syncthreads();
    int64_t *other = from;
    from = to, to = other;
  }
  for (int64_t i = threadIdx.x; i < length; i += THREADS) result[start + i * stride] = from[i];
}
