
/* ---- sm_90a: barriers in shared memory, copies of tiles by the TMA unit, products of warp groups (PTX ISA, "mbarrier",
 * "cp.async.bulk.tensor", "wgmma"). What multiplies reads memory behind the back of ordinary loads and stores: the
 * async proxy. ---- */

#ifndef GRAPHC_EMULATED
GRAPHC_INLINE void graphc_barrier_init(uint64_t *barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(graphc_shared_address(barrier)), "r"(arrivals) : "memory");
}
/* What this thread has initialised is seen by the unit that copies. */
GRAPHC_INLINE void graphc_barriers_ready() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
GRAPHC_INLINE void graphc_barrier_arrive(uint64_t *barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(graphc_shared_address(barrier)) : "memory");
}
/* The phase also waits for so many bytes of copies. */
GRAPHC_INLINE void graphc_barrier_expect(uint64_t *barrier, int bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(graphc_shared_address(barrier)), "r"(bytes)
               : "memory");
}
/* Until the phase with this parity has ended; the one before the first has. */
GRAPHC_INLINE void graphc_barrier_wait(uint64_t *barrier, int parity) {
  asm volatile("{\n"
               ".reg .pred done;\n"
               "AGAIN:\n"
               "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
               "@done bra READY;\n"
               "bra AGAIN;\n"
               "READY:\n"
               "}" ::"r"(graphc_shared_address(barrier)),
               "r"(parity)
               : "memory");
}
/* Copies a box to shared memory, innermost coordinate first; the barrier counts its bytes when they have come. */
/* Copies a box to shared memory, innermost coordinate first; the barrier counts its bytes when they have come. */
GRAPHC_INLINE void graphc_map_copy(void *to, const CUtensorMap &map, uint64_t *barrier, int c0, int c1, int c2) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(graphc_shared_address(to)),
               "l"(&map), "r"(graphc_shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2)
               : "memory");
}
GRAPHC_INLINE void graphc_map_copy(void *to, const CUtensorMap &map, uint64_t *barrier, int c0, int c1, int c2, int c3,
                                   int c4) {
  asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(graphc_shared_address(to)),
               "l"(&map), "r"(graphc_shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
               : "memory");
}
/* Arrives when all copies that the thread has begun with cp.async are done. */
GRAPHC_INLINE void graphc_barrier_arrive_with_copies(uint64_t *barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(graphc_shared_address(barrier)) : "memory");
}
/* The same for each block of the cluster that has its bit: to the same place there, counted by the barrier there. */
GRAPHC_INLINE void graphc_map_share(void *to, const CUtensorMap &map, uint64_t *barrier, int blocks, int c0, int c1, int c2,
                                    int c3, int c4) {
  asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
               "[%0], [%1, {%4, %5, %6, %7, %8}], [%2], %3;" ::"r"(graphc_shared_address(to)),
               "l"(&map), "r"(graphc_shared_address(barrier)), "h"((unsigned short)blocks), "r"(c0), "r"(c1), "r"(c2),
               "r"(c3), "r"(c4)
               : "memory");
}
GRAPHC_INLINE int graphc_cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/* All threads of all blocks of the cluster. */
GRAPHC_INLINE void graphc_cluster_sync() {
  asm volatile("barrier.cluster.arrive.release;\n"
               "barrier.cluster.wait.acquire;" ::
                   : "memory");
}
/* Arrives at the barrier in the same place of another block of the cluster. */
GRAPHC_INLINE void graphc_barrier_arrive_at(uint64_t *barrier, int rank) {
  asm volatile("{\n"
               ".reg .b32 there;\n"
               "mapa.shared::cluster.u32 there, %0, %1;\n"
               "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
               "}" ::"r"(graphc_shared_address(barrier)),
               "r"(rank)
               : "memory");
}
/* What this thread has written to shared memory, or seen written by others, is seen by products begun after. */
GRAPHC_INLINE void graphc_async_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
GRAPHC_INLINE void graphc_products_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
GRAPHC_INLINE void graphc_products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Until all groups of products but the latest GROUPS are done. */
template <int GROUPS> GRAPHC_INLINE void graphc_products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory");
}
/* Sums that products wrote are read after this alone. */
GRAPHC_INLINE void graphc_sum_ready(float &sum) { asm volatile("" : "+f"(sum)::"memory"); }
/* The registers of each thread of a warp group, from now on. */
template <int COUNT> GRAPHC_INLINE void graphc_fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT> GRAPHC_INLINE void graphc_more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}
#endif

/* ---- The ring: STAGES tiles of BM rows of the left and BN of the right operand, 128 bytes of K wide and swizzled, each
 * with a barrier that says it is full and one that says it is free. The CLUSTER blocks of a cluster take tiles with the same
 * columns: each copies its part of the right operand to all of them, when the tile is free in all. ---- */

template <int STAGES_, int BM_, int BN_, int CLUSTER_> struct graphc_ring {
  static constexpr int STAGES = STAGES_, BM = BM_, BN = BN_, CLUSTER = CLUSTER_, STAGE = (BM + BN) * 128;
  static constexpr int WARPS = BM / 16; /* that multiply: four for 64 rows */
  static __device__ __forceinline__ unsigned char *left(int slot) {
    extern __shared__ __align__(1024) unsigned char graphc_ring_memory[];
    return graphc_ring_memory + slot * STAGE;
  }
  static __device__ __forceinline__ unsigned char *right(int slot) { return left(slot) + BM * 128; }
  static __device__ __forceinline__ uint64_t *full(int slot) { return (uint64_t *)left(STAGES) + slot; }
  static __device__ __forceinline__ uint64_t *free(int slot) { return (uint64_t *)left(STAGES) + STAGES + slot; }
};

/* Where in the ring step `done` is: the parity of full barriers is that of the round. */
template <int STAGES> struct graphc_slot {
  int slot, parity;
  __device__ __forceinline__ graphc_slot(int done) : slot(done % STAGES), parity(done / STAGES & 1) {}
  __device__ __forceinline__ void next() {
    if (++slot == STAGES) slot = 0, parity ^= 1;
  }
};

/* All threads of the block; `arrivals` of producers make a tile full, besides the bytes. */
template <typename Ring> GRAPHC_INLINE void graphc_open_ring(int arrivals) {
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < Ring::STAGES; slot++) {
      graphc_barrier_init(Ring::full(slot), arrivals);
      graphc_barrier_init(Ring::free(slot), Ring::WARPS * Ring::CLUSTER);
    }
    graphc_barriers_ready();
  }
  if (Ring::CLUSTER > 1) graphc_cluster_sync();
  else __syncthreads();
}
/* No block ends while others still copy or arrive there. */
template <typename Ring> GRAPHC_INLINE void graphc_close_ring() {
  if (Ring::CLUSTER > 1) graphc_cluster_sync();
}

/* Which tile block after block takes: bands of BAND rows of tiles, so that those under way share operands. */
template <int BAND> GRAPHC_INLINE int graphc_tile_row(int number, int rows, int columns) {
  int band = number / (BAND * columns), height = rows - band * BAND;
  return band * BAND + (number - band * BAND * columns) % (height < BAND ? height : BAND);
}
template <int BAND> GRAPHC_INLINE int graphc_tile_column(int number, int rows, int columns) {
  int band = number / (BAND * columns), height = rows - band * BAND;
  return (number - band * BAND * columns) / (height < BAND ? height : BAND);
}

/* ---- Who fills the ring ---- */

/* Rows of the left operand by a map of K, rows, batch. */
struct graphc_map_rows {
  const CUtensorMap &map;
  int row, batch;
  __device__ __forceinline__ graphc_map_rows(const CUtensorMap &map, int row, int batch)
      : map(map), row(row), batch(batch) {}
  template <typename Ring> __device__ __forceinline__ void copy(int slot, int step) const {
    graphc_map_copy(Ring::left(slot), map, Ring::full(slot), step * 64, row, batch);
  }
};
/* Rows of the right one, in the order in which a thread gets eight neighbouring columns of the result: by a map of K, 8
 * rows that are 4 apart, 4 neighbours, groups of 32 rows, batch. */
struct graphc_map_columns {
  const CUtensorMap &map;
  int group, batch;
  __device__ __forceinline__ graphc_map_columns(const CUtensorMap &map, int group, int batch)
      : map(map), group(group), batch(batch) {}
  template <typename Ring> __device__ __forceinline__ void copy(int slot, int step) const {
    uint64_t *barrier = Ring::full(slot);
    if (Ring::CLUSTER == 1) {
      graphc_map_copy(Ring::right(slot), map, barrier, step * 64, 0, 0, group, batch);
    } else {
      constexpr int PART = Ring::BN / Ring::CLUSTER;
      int rank = graphc_cluster_rank();
      graphc_map_share(Ring::right(slot) + rank * PART * 128, map, barrier, (1 << Ring::CLUSTER) - 1, step * 64, 0, 0,
                       group + rank * (PART / 32), batch);
    }
  }
};

/* Fills the ring for one tile, of which the steps before were `done`: one thread has all copied. */
template <typename Ring, typename A, typename B> GRAPHC_INLINE void graphc_fill(const A &a, const B &b, int done, int steps) {
  if (threadIdx.x != 0) return;
  graphc_slot<Ring::STAGES> at(done);
  for (int step = 0; step < steps; step++, at.next()) {
    graphc_barrier_wait(Ring::free(at.slot), at.parity ^ 1);
    graphc_barrier_expect(Ring::full(at.slot), Ring::STAGE);
    a.template copy<Ring>(at.slot, step);
    b.template copy<Ring>(at.slot, step);
    graphc_barrier_arrive(Ring::full(at.slot));
  }
}

/* The same where all 128 threads copy the left operand: a tile is full when the copies of each are done. */
template <typename Ring, typename A, typename B>
GRAPHC_INLINE void graphc_gather(const A &a, const B &b, int done, int steps) {
  graphc_slot<Ring::STAGES> at(done);
  for (int step = 0; step < steps; step++, at.next()) {
    graphc_barrier_wait(Ring::free(at.slot), at.parity ^ 1);
    if (threadIdx.x == 0) {
      graphc_barrier_expect(Ring::full(at.slot), Ring::BN * 128);
      b.template copy<Ring>(at.slot, step);
    }
    a.copy(Ring::left(at.slot), step);
    graphc_barrier_arrive_with_copies(Ring::full(at.slot));
  }
}

/* ---- Who empties it ---- */

/* Rows of 128 bytes along K, swizzled by 128 bytes, groups of eight rows 1024 bytes apart. */
GRAPHC_INLINE uint64_t graphc_matrix(const unsigned char *rows) {
  return (uint64_t)(graphc_shared_address(rows) >> 4 & 0x3fff) | (uint64_t)1 << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

/* A warp says that it is done with a tile, to each block that copies to it. */
template <typename Ring> GRAPHC_INLINE void graphc_release(int slot) {
  int lane = (int)threadIdx.x % 32;
  if (Ring::CLUSTER == 1) {
    if (lane == 0) graphc_barrier_arrive(Ring::free(slot));
  } else {
    if (lane < Ring::CLUSTER) graphc_barrier_arrive_at(Ring::free(slot), lane);
  }
}

/* A warp group multiplies its 64 rows: SUMS = BN / 2 sums of each thread. */
template <typename Units, typename Ring, int SUMS, bool GATHERED> GRAPHC_INLINE void graphc_empty(float *sums, int done, int steps) {
  int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128 - 1, 0); /* one number for the compiler, too */
  graphc_slot<Ring::STAGES> at(done), before(done);
  for (int step = 0; step < steps; step++, at.next()) {
    graphc_barrier_wait(Ring::full(at.slot), at.parity);
    if (GATHERED) graphc_async_fence();
    uint64_t a = graphc_matrix(Ring::left(at.slot) + group * 64 * 128), b = graphc_matrix(Ring::right(at.slot));
    graphc_products_fence();
#pragma unroll
    for (int kk = 0; kk < 4; kk++) Units::multiply(sums, a + kk * 2, b + kk * 2, step | kk);
    graphc_products_commit();
    if (step > 0) { /* the step before is done: its tile is free */
      graphc_products_wait<1>();
      graphc_release<Ring>(before.slot);
      before.next();
    }
  }
  graphc_products_wait<0>();
  graphc_release<Ring>(before.slot);
#pragma unroll
  for (int i = 0; i < SUMS; i++) graphc_sum_ready(sums[i]);
}
