// The machine that runs a kernel's threads on the CPU: one block at a time, each thread a fiber that runs until it has to
// wait for others. Kernels see it through device.h; machine.cc is compiled once and linked to every emulated program.
#ifndef GRAPHC_MACHINE_H
#define GRAPHC_MACHINE_H

#include <cstddef>
#include <cstdint>

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

// Waits until `count` threads are at barrier `id` (bar.sync id, count), or have passed it with arrive (bar.arrive).
void named_barrier(int id, int count, bool wait);

// Waits until every lane of the mask is here with the same `all`; the last one runs it on what each lane has posted.
using Collective = void (*)(void **posted, unsigned mask);
void collective(unsigned mask, void *mine, Collective all, const char *what);

// Waits until ready(data).
void wait_until(bool (*ready)(void *), void *data, const char *what);

unsigned lane();
unsigned active_lanes();
void *dynamic_shared();
size_t dynamic_shared_bytes();

void copy_async(const Copy &copy);
void commit_copies();
void wait_copies(unsigned but_latest);

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// A kernel of an emulated program: called with pointers to its arguments, as cuLaunchKernel gives them.
struct Kernel {
    const char *name;
    void (*invoke)(void **arguments);
    const size_t *sizes; // of the arguments in bytes
    size_t arguments;
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
}

#endif
