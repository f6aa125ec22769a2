// sm_90a: barriers in shared memory, copies by the TMA unit, products of warp groups, with bodies for the CPU (PTX ISA,
// "mbarrier", "cp.async.bulk.tensor", "wgmma"). A product happens as late as it may, when a thread waits for its group. So
// does a copy, when a thread waits for the barrier that counts its bytes: a missing wait shows. Where threads run in
// reverse it happens at once: a tile that is overwritten too early shows.
#ifndef GRAPHC_HOPPER_H
#define GRAPHC_HOPPER_H

#include <deque>
#include <map>
#include <set>
#include <variant>

namespace machine {

// ---- addresses of the shared window

constexpr uint32_t WINDOW = 1024; // where dynamic shared memory begins: no pointer is 0

inline uint32_t shared_address(const void *p) {
    const auto offset = static_cast<const char *>(p) - static_cast<const char *>(dynamic_shared());
    if (offset < 0 || static_cast<size_t>(offset) >= dynamic_shared_bytes()) fail("not in dynamic shared memory");
    return WINDOW + static_cast<uint32_t>(offset);
}
inline char *shared_bytes(uint32_t address, uint32_t count) {
    if (address < WINDOW || address - WINDOW + count > dynamic_shared_bytes())
        fail("shared memory ends before address %u", address + count);
    return static_cast<char *>(dynamic_shared()) + (address - WINDOW);
}
// The same place in another block of the cluster.
inline char *in_block(const void *p, unsigned rank) {
    return static_cast<char *>(dynamic_shared_of(rank)) + (shared_address(p) - WINDOW);
}
// Swizzling permutes bits of the address itself: bits 4.. by bits 7.. of as many.
inline uint32_t swizzled(uint32_t address, int bits) { return address ^ ((address >> 7 & ((1u << bits) - 1)) << 4); }

// ---- mbarrier

struct Barrier {
    uint16_t arrivals, pending;
    int32_t bytes : 31;
    uint32_t phase : 1;
    void settle() {
        if (pending || bytes) return;
        phase ^= 1;
        pending = arrivals;
    }
};
inline void arrive(Barrier &barrier) {
    if (!barrier.pending) fail("a barrier has more arrivals than it was made for");
    barrier.pending--;
    barrier.settle();
}
static_assert(sizeof(Barrier) == 8);

inline Barrier &barrier_at(uint64_t *at) {
    if (reinterpret_cast<uintptr_t>(at) % 8) fail("a barrier is not aligned to 8");
    shared_address(at);
    return *reinterpret_cast<Barrier *>(at);
}

// ---- copies of boxes

struct BoxCopy {
    char *window;     // of the block it goes to
    uint32_t address; // there
    TensorMap map;
    int at[5];
    Barrier *barrier;
    uint32_t bytes() const {
        uint32_t total = map.element_bytes;
        for (int d = 0; d < map.rank; d++) total *= map.box[d];
        return total;
    }
};

// The copies of a thread with cp.async before it arrived, which its arrival waits for.
struct ThreadCopies {
    std::vector<Copy> copies;
    Barrier *barrier;
};

inline void perform(const BoxCopy &copy) {
    const TensorMap &m = copy.map;
    const uint32_t total = copy.bytes();
    uint32_t in[5] = {};
    const uint32_t inner = m.box[0] * m.element_bytes;
    for (uint32_t done = 0; done < total; done += inner) {
        bool inside = true;
        const char *from = m.base;
        for (int d = 1; d < m.rank; d++) {
            const int64_t place = static_cast<int64_t>(copy.at[d]) + in[d];
            inside &= place >= 0 && place < m.shape[d];
            if (inside) from += static_cast<uint64_t>(place) * m.strides[d - 1];
        }
        for (uint32_t b = 0; b < inner; b += m.element_bytes) {
            const int64_t place = static_cast<int64_t>(copy.at[0]) + b / m.element_bytes;
            char *to = copy.window + (swizzled(copy.address + done + b, m.swizzle) - WINDOW);
            if (inside && place >= 0 && place < m.shape[0])
                memcpy(to, from + static_cast<uint64_t>(place) * m.element_bytes, m.element_bytes);
            else
                memset(to, 0, m.element_bytes);
        }
        for (int d = 1; d < m.rank && ++in[d] == m.box[d]; d++) in[d] = 0;
    }
    copy.barrier->bytes -= static_cast<int32_t>(total);
    copy.barrier->settle();
}

inline void perform(const ThreadCopies &copies) {
    for (const Copy &copy : copies.copies) perform(copy);
    arrive(*copies.barrier);
}

using UnderWay = std::variant<BoxCopy, ThreadCopies>;
inline std::multimap<Barrier *, UnderWay> copies_under_way;
inline std::set<Barrier *> gathered;  // barriers that threads with copies of their own arrive at
inline std::set<unsigned> unfenced;   // threads that have waited for one and not fenced since

template <class T>
void begin(const T &copy) {
    if (reversed) perform(copy);
    else copies_under_way.emplace(copy.barrier, copy);
}

// To the same place in each block of `blocks`, a bit for each.
inline void begin_box(void *to, const CUtensorMap &map, uint64_t *barrier, unsigned blocks, std::initializer_list<int> at) {
    BoxCopy copy{nullptr, shared_address(to), {}, {}, &barrier_at(barrier)};
    memcpy(&copy.map, &map, sizeof copy.map);
    if (copy.map.rank != static_cast<int>(at.size())) fail("a copy of %zu axes by a map of %d", at.size(), copy.map.rank);
    if (copy.address % (copy.map.swizzle ? 128 : 16)) fail("a box is not aligned");
    shared_bytes(copy.address, copy.bytes());
    std::copy(at.begin(), at.end(), copy.at);
    if (blocks >> cluster_size()) fail("a copy to a block that is not in the cluster");
    for (unsigned rank = 0; rank < cluster_size(); rank++) {
        if (!(blocks >> rank & 1)) continue;
        copy.window = static_cast<char *>(dynamic_shared_of(rank));
        copy.barrier = reinterpret_cast<Barrier *>(in_block(barrier, rank));
        begin(copy);
    }
}

struct BarrierWait {
    Barrier *barrier;
    uint32_t parity;
};

// Whether there is anything for the thread to do or to see.
inline bool barrier_moves(void *data) {
    const auto *wait = static_cast<BarrierWait *>(data);
    return wait->barrier->phase != wait->parity || copies_under_way.count(wait->barrier);
}

inline void wait_barrier(BarrierWait wait) {
    while (wait.barrier->phase == wait.parity) {
        wait_until(barrier_moves, &wait, "a barrier in shared memory");
        const auto found = copies_under_way.equal_range(wait.barrier);
        std::vector<UnderWay> now;
        for (auto i = found.first; i != found.second; i++) now.push_back(i->second);
        copies_under_way.erase(found.first, found.second);
        for (const UnderWay &copy : now) std::visit([](const auto &c) { perform(c); }, copy);
    }
    if (gathered.count(wait.barrier)) unfenced.insert(thread_number());
}

// ---- wgmma: D of a warp group; a warp has 16 of its 64 rows

template <float (*Of)(uint32_t)>
struct Operand {
    uint32_t start, stride;
    int bits;
    explicit Operand(uint64_t descriptor)
        : start(static_cast<uint32_t>(descriptor & 0x3fff) << 4),
          stride(static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4) {
        static const int of_mode[] = {0, 3, 2, 1};
        bits = of_mode[descriptor >> 62];
        if (!bits) fail("wgmma: rows without a swizzle are not emulated");
        if (descriptor >> 49 & 7) fail("wgmma: a base offset is not emulated");
    }
    // Row `row` over 16 of K: rows are 16 << bits bytes apart in groups of eight, groups `stride` bytes.
    void row(int row, float *to) const {
        const uint32_t at = start + static_cast<uint32_t>(row % 8) * (16u << bits) + static_cast<uint32_t>(row / 8) * stride;
        for (uint32_t half = 0; half < 2; half++) {
            uint16_t words[8];
            memcpy(words, shared_bytes(swizzled(at + half * 16, bits), 16), 16);
            for (int i = 0; i < 8; i++) to[half * 8 + static_cast<uint32_t>(i)] = Of(words[i]);
        }
    }
};

struct Product {
    float *d;
    uint64_t a, b;
    int n, add;
    void (*perform)(const Product &);
};

template <float (*Of)(uint32_t)>
void multiply_group(const Product &p) {
    const Operand<Of> left(p.a), right(p.b);
    const int row = static_cast<int>(threadIdx.x) / 32 % 4 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
    float x[2][16], y[16];
    left.row(row, x[0]);
    left.row(row + 8, x[1]);
    for (int j = 0; j < p.n / 8; j++)
        for (int i = 0; i < 2; i++) {
            right.row(j * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i, y);
            for (int half = 0; half < 2; half++) {
                float &d = p.d[j * 4 + half * 2 + i];
                float sum = p.add ? d : 0.0f;
                for (int k = 0; k < 16; k++) sum += x[half][k] * y[k];
                d = sum;
            }
        }
}

struct Group {
    std::vector<Product> open;
    std::deque<std::vector<Product>> committed;
    bool fenced = false;
};
inline std::vector<Group> product_groups; // by thread

inline Group &group_of_thread() {
    if (product_groups.size() <= thread_number()) product_groups.resize(thread_number() + 1);
    return product_groups[thread_number()];
}

template <float (*Of)(uint32_t), int N>
void begin_product(float *d, uint64_t a, uint64_t b, int add) {
    uint64_t mine[] = {a, b, add != 0};
    collective(
        0xffffffffu, mine,
        [](void **posted, unsigned) {
            for (int l = 1; l < 32; l++)
                if (memcmp(posted[0], posted[l], sizeof(uint64_t[3]))) fail("wgmma: lanes differ in their operands");
        },
        "wgmma");
    Group &group = group_of_thread();
    if (unfenced.count(thread_number())) fail("wgmma does not see what cp.async has written without a fence");
    if (!group.fenced) fail("wgmma: no wgmma.fence since registers or the last wait");
    group.open.push_back({d, a, b, N, add, multiply_group<Of>});
}

inline void wait_products(size_t but_latest) {
    Group &group = group_of_thread();
    while (group.committed.size() > but_latest) {
        for (const Product &p : group.committed.front()) p.perform(p);
        group.committed.pop_front();
    }
    collective(0xffffffffu, nullptr, [](void **, unsigned) {}, "wgmma.wait_group"); // of the whole warp
}

// A block that ends before its copies and products do has forgotten to wait.
inline const char *end_of_block() {
    bool open = !copies_under_way.empty();
    for (const Group &group : product_groups) open |= !group.open.empty() || !group.committed.empty();
    copies_under_way.clear();
    gathered.clear();
    unfenced.clear();
    product_groups.clear();
    return open ? "it ends before its copies or products do" : nullptr;
}
inline const bool told_of_ends = (on_block_end = end_of_block, true);

} // namespace machine

inline uint32_t graphc_shared_address(const void *p) { return machine::shared_address(p); }
inline void graphc_barrier_init(uint64_t *at, int arrivals) {
    machine::barrier_at(at) = {static_cast<uint16_t>(arrivals), static_cast<uint16_t>(arrivals), 0, 0};
}
inline void graphc_barriers_ready() {}
inline void graphc_barrier_arrive(uint64_t *at) {
    machine::arrive(machine::barrier_at(at));
}
inline void graphc_barrier_arrive_at(uint64_t *at, int rank) {
    machine::barrier_at(at);
    machine::arrive(*reinterpret_cast<machine::Barrier *>(machine::in_block(at, static_cast<unsigned>(rank))));
}
inline void graphc_barrier_arrive_with_copies(uint64_t *at) {
    machine::Barrier &barrier = machine::barrier_at(at);
    machine::gathered.insert(&barrier);
    machine::begin(machine::ThreadCopies{machine::take_copies(), &barrier});
}
inline void graphc_barrier_expect(uint64_t *at, int bytes) { machine::barrier_at(at).bytes += bytes; }
inline void graphc_barrier_wait(uint64_t *at, int parity) {
    machine::wait_barrier({&machine::barrier_at(at), static_cast<uint32_t>(parity)});
}
inline void graphc_map_copy(void *to, const CUtensorMap &map, uint64_t *barrier, int c0, int c1, int c2) {
    machine::begin_box(to, map, barrier, 1u << machine::block_rank(), {c0, c1, c2});
}
inline void graphc_map_copy(void *to, const CUtensorMap &map, uint64_t *barrier, int c0, int c1, int c2, int c3, int c4) {
    machine::begin_box(to, map, barrier, 1u << machine::block_rank(), {c0, c1, c2, c3, c4});
}
inline void graphc_map_share(void *to, const CUtensorMap &map, uint64_t *barrier, int blocks, int c0, int c1, int c2, int c3,
                             int c4) {
    machine::begin_box(to, map, barrier, static_cast<unsigned>(blocks), {c0, c1, c2, c3, c4});
}
inline int graphc_cluster_rank() { return static_cast<int>(machine::block_rank()); }
inline void graphc_cluster_sync() { machine::cluster_barrier(); }
inline void graphc_async_fence() { machine::unfenced.erase(machine::thread_number()); }
inline void graphc_products_fence() { machine::group_of_thread().fenced = true; }
inline void graphc_products_commit() {
    machine::Group &group = machine::group_of_thread();
    group.committed.push_back(std::move(group.open));
    group.open.clear();
    group.fenced = false;
}
template <int But>
void graphc_products_wait() {
    machine::wait_products(But);
}
inline void graphc_sum_ready(float &) {}
template <int Count>
void graphc_fewer_registers() {}
template <int Count>
void graphc_more_registers() {}

#define PRODUCTS(n)                                                                                                    \
    inline void graphc_wgmma_bf16_n##n(float *d, uint64_t a, uint64_t b, int add) {                                    \
        machine::begin_product<machine::of_bf16, n>(d, a, b, add);                                                     \
    }                                                                                                                  \
    inline void graphc_wgmma_f16_n##n(float *d, uint64_t a, uint64_t b, int add) {                                     \
        machine::begin_product<machine::of_f16, n>(d, a, b, add);                                                      \
    }
PRODUCTS(32)
PRODUCTS(64)
PRODUCTS(128)
PRODUCTS(256)
#undef PRODUCTS

#endif
