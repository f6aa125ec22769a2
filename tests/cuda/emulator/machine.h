// The machine that runs a kernel's threads on the CPU: one block or cluster at a time, each thread a fiber that runs until it has
// to wait for others. Kernels see it through device.h; machine.cc is compiled once and linked to every emulated
// program.
#ifndef GRAPHC_MACHINE_H
#define GRAPHC_MACHINE_H

#include <cstddef>
#include <cstdint>
#include <vector>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 : uint3 {
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : uint3{x, y, z} {}
};

// Of the thread that runs now.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace machine {

// A copy that cp.async has begun: done when the thread waits for it.
struct Copy {
    void *to;
    const void *from;
    int bytes, read;
};

// Waits until all threads of the block that have not ended are here.
void block_barrier(const char *what);

// Waits until all threads of the cluster that have not ended are here.
void cluster_barrier();

// Waits until `count` threads are at barrier `id` (bar.sync id, count), or have passed it with arrive (bar.arrive).
void named_barrier(int id, int count, bool wait);

// Waits until every lane of the mask is here with the same `all`; the last one runs it on what each lane has posted.
using Collective = void (*)(void **posted, unsigned mask);
void collective(unsigned mask, void *mine, Collective all, const char *what);

// Waits until ready(data).
void wait_until(bool (*ready)(void *), void *data, const char *what);

unsigned lane();
// Of the thread among those that run together, of its block in the cluster, and of blocks in it.
unsigned thread_number();
unsigned block_rank();
unsigned cluster_size();
unsigned active_lanes();
void *dynamic_shared();
void *dynamic_shared_of(unsigned rank); // fails where that block has ended
size_t dynamic_shared_bytes();

void copy_async(const Copy &copy);
void commit_copies();
void wait_copies(unsigned but_latest);
// Whether blocks and threads run last to first.
extern bool reversed;
// What the thread has begun to copy and not committed, which its caller now cares for.
std::vector<Copy> take_copies();
void perform(const Copy &copy);

// Called when a block has ended: what is wrong with it, or null.
extern const char *(*on_block_end)();

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// What a CUtensorMap holds here: box copies of up to 5 axes, innermost first (extents and byte strides of axes fit).
struct TensorMap {
    char *base;
    uint32_t shape[5];
    uint64_t strides[4];
    uint16_t box[5];
    uint8_t type, rank, swizzle, element_bytes;
};
static_assert(sizeof(TensorMap) <= 128);

// With the driver's rules: 16-byte alignment of base and strides, boxes of at most 256 elements an axis and, where they
// are swizzled, of at most as many bytes along the first. False where one is broken.
inline bool encode_tensor_map(TensorMap *map, int type, uint32_t rank, void *base, const uint64_t *shape,
                              const uint64_t *strides, const uint32_t *box, int swizzle) {
    static const uint8_t bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2};
    if (rank < 1 || rank > 5 || type > 9 || reinterpret_cast<uintptr_t>(base) % 16) return false;
    *map = TensorMap{};
    map->base = static_cast<char *>(base);
    map->type = static_cast<uint8_t>(type);
    map->rank = static_cast<uint8_t>(rank);
    map->swizzle = static_cast<uint8_t>(swizzle);
    map->element_bytes = bytes[type];
    for (uint32_t i = 0; i < rank; i++) {
        if (!shape[i] || shape[i] >> 32 || !box[i] || box[i] > 256) return false;
        if (i + 1 < rank && (strides[i] % 16 || strides[i] >> 40)) return false;
        map->shape[i] = static_cast<uint32_t>(shape[i]);
        map->box[i] = static_cast<uint16_t>(box[i]);
        if (i + 1 < rank) map->strides[i] = strides[i];
    }
    const uint32_t inner = box[0] * map->element_bytes;
    return inner % 16 == 0 && (!swizzle || inner <= (16u << swizzle));
}

// A kernel of an emulated program: called with pointers to its arguments, as cuLaunchKernel gives them.
struct Kernel {
    const char *name;
    void (*invoke)(void **arguments);
    const size_t *sizes; // of the arguments in bytes
    size_t arguments;
    unsigned cluster; // blocks along x that run together (__cluster_dims__)
};

} // namespace machine

extern "C" {
extern const machine::Kernel emulated_kernels[];
extern const size_t emulated_kernel_count;
const machine::Kernel *emulated_kernel(const char *name);

// Runs a kernel. 0, or 700 (CUDA_ERROR_ILLEGAL_ADDRESS) and the reason in emulated_error().
int emulated_launch(const machine::Kernel *kernel, const unsigned grid[3], const unsigned block[3], unsigned shared,
                    void **arguments, int reverse);
const char *emulated_error();

// What a launch is given for a tensor map: 128 bytes. 0 where the driver would refuse it.
int emulated_tensor_map(machine::TensorMap *map, int type, uint32_t rank, void *base, const uint64_t *shape,
                        const uint64_t *strides, const uint32_t *box, int swizzle);
}

#endif
