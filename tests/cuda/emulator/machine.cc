// See machine.h. x86-64 Linux only, like the rest of the compiler.
#include "machine.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <utility>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

extern "C" void machine_switch(void **save, void *to);
asm(R"(
.text
.globl machine_switch
.hidden machine_switch
.type machine_switch, @function
machine_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size machine_switch, .-machine_switch
)");

// Static shared memory of all kernels (device.h puts it into this section).
extern "C" char __start_graphc_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_graphc_shared[] __attribute__((weak, visibility("hidden")));

namespace machine {
namespace {

constexpr size_t STACK = 256 << 10, PAGE = 4096;
constexpr unsigned char POISON = 0xff; // NaN, or -1

struct Fiber {
    void *stack_pointer;
    char *stack;
};

enum class State { fresh, ready, warp, block, cluster, named, polls, done };

struct Thread {
    State state;
    Fiber *fiber;
    unsigned rank; // of its block in the cluster
    uint3 index;
    unsigned mask;
    void *posted;
    Collective all;
    int barrier;
    const char *what;
    bool (*is_ready)(void *);
    void *data;
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> groups;
};

struct Named {
    int expected, arrived;
};

// One of the blocks that run together.
struct Block {
    uint3 index;
    char *dynamic_memory;
    size_t at_barrier, done;
    std::map<int, Named> named;
};

std::mutex one_launch;
std::vector<Thread> threads; // of all blocks of the cluster, block after block
std::vector<Block> blocks;
std::vector<Fiber *> spare, all_fibers;
Thread *current;
size_t done_threads, at_cluster;
void *main_stack;
const Kernel *kernel;
void **arguments;
size_t dynamic_bytes;
char message[1024];
bool failed;
volatile sig_atomic_t running;
alignas(16) char abandon_stack[32 << 10], signal_stack[64 << 10];

void to_scheduler() {
    Fiber *fiber = current->fiber;
    machine_switch(&fiber->stack_pointer, main_stack);
}

[[noreturn]] void abandon() {
    void *unused;
    failed = true;
    machine_switch(&unused, main_stack);
    abort();
}

void where(char *text, size_t size) {
    const uint3 &t = current ? current->index : threadIdx;
    snprintf(text, size, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u)", kernel->name, blockIdx.x, blockIdx.y,
             blockIdx.z, t.x, t.y, t.z);
}

void on_signal(int number, siginfo_t *info, void *context) {
    if (!running) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    char place[256];
    where(place, sizeof place);
    const char *what = number == SIGILL   ? "an array index out of bounds, or a misaligned vector access"
                       : number == SIGFPE ? "an integer division by zero"
                                          : "an invalid address";
    snprintf(message, sizeof message, "%s: %s (%p)", place, what, info->si_addr);
    auto *registers = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
    registers[REG_RIP] = reinterpret_cast<greg_t>(abandon);
    registers[REG_RSP] = reinterpret_cast<greg_t>(abandon_stack + sizeof abandon_stack - 8);
}

void fiber_main() {
    for (;;) {
        kernel->invoke(arguments);
        wait_copies(0);
        current->state = State::done;
        done_threads++;
        blocks[current->rank].done++;
        to_scheduler();
    }
}

Fiber *new_fiber() {
    auto *memory = static_cast<char *>(
        mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory == MAP_FAILED) return nullptr;
    mprotect(memory, PAGE, PROT_NONE); // below it ends in a signal
    auto *fiber = new Fiber{nullptr, memory + PAGE};
    all_fibers.push_back(fiber);
    return fiber;
}

void prepare(Fiber *fiber) {
    auto *top = reinterpret_cast<void **>(fiber->stack + STACK);
    memset(top - 16, 0, 16 * sizeof *top);
    top[-2] = reinterpret_cast<void *>(fiber_main);
    fiber->stack_pointer = top - 8; // six registers, then the address to begin at
}

void resume(Thread &t) {
    if (t.state == State::fresh) {
        if (spare.empty()) {
            t.fiber = new_fiber();
            if (!t.fiber) {
                snprintf(message, sizeof message, "no memory for the stacks of %zu threads", threads.size());
                failed = true;
                return;
            }
            prepare(t.fiber);
        } else {
            t.fiber = spare.back();
            spare.pop_back();
        }
    }
    t.state = State::ready;
    threadIdx = t.index;
    blockIdx = blocks[t.rank].index;
    current = &t;
    machine_switch(&main_stack, t.fiber->stack_pointer);
    current = nullptr;
    if (!failed && t.state == State::done) spare.push_back(t.fiber);
}

size_t block_size() { return threads.size() / blocks.size(); }

void release_block() {
    for (unsigned rank = 0; rank < blocks.size(); rank++) {
        Block &b = blocks[rank];
        if (b.at_barrier == 0 || b.at_barrier + b.done < block_size()) continue;
        for (Thread &t : threads)
            if (t.rank == rank && t.state == State::block) t.state = State::ready;
        b.at_barrier = 0;
    }
    if (at_cluster == 0 || at_cluster + done_threads < threads.size()) return;
    for (Thread &t : threads)
        if (t.state == State::cluster) t.state = State::ready;
    at_cluster = 0;
}

void report_deadlock() {
    std::map<std::string, size_t> waiting;
    for (const Thread &t : threads)
        if (t.state != State::done) waiting[t.what ? t.what : "?"]++;
    int used = snprintf(message, sizeof message,
                        "kernel %s, block (%u, %u, %u): threads wait for each other for ever:", kernel->name,
                        blockIdx.x, blockIdx.y, blockIdx.z);
    for (const auto &[what, count] : waiting)
        used +=
            snprintf(message + used, sizeof message - static_cast<size_t>(used), " %zu at %s;", count, what.c_str());
    snprintf(message + used, sizeof message - static_cast<size_t>(used), " %zu have ended", done_threads);
    failed = true;
}

// Runs the blocks of a cluster; one block is a cluster of its own.
void run_cluster(bool reverse) {
    done_threads = at_cluster = 0;
    for (Block &b : blocks) {
        b.at_barrier = b.done = 0;
        b.named.clear();
    }
    for (Thread &t : threads) {
        t.state = State::fresh;
        t.open.clear();
        t.groups.clear();
    }
    const size_t n = threads.size();
    while (!failed && done_threads < n) {
        bool progress = false;
        for (size_t i = 0; i < n && !failed; i++) {
            Thread &t = threads[reverse ? n - 1 - i : i];
            if (t.state == State::polls && t.is_ready(t.data)) t.state = State::ready;
            if (t.state != State::fresh && t.state != State::ready) continue;
            progress = true;
            resume(t);
            release_block();
        }
        if (!progress && !failed) report_deadlock();
    }
    const char *wrong = on_block_end ? on_block_end() : nullptr;
    if (wrong && !failed) {
        snprintf(message, sizeof message, "kernel %s, block (%u, %u, %u): %s", kernel->name, blockIdx.x, blockIdx.y,
                 blockIdx.z, wrong);
        failed = true;
    }
}

// Whatever a launch leaves unfinished, its fibers begin anew with the next.
void reset_fibers() {
    spare.clear();
    for (Fiber *fiber : all_fibers) {
        prepare(fiber);
        spare.push_back(fiber);
    }
}

} // namespace

void fail(const char *format, ...) {
    char place[256];
    where(place, sizeof place);
    int used = snprintf(message, sizeof message, "%s: ", place);
    va_list list;
    va_start(list, format);
    vsnprintf(message + used, sizeof message - static_cast<size_t>(used), format, list);
    va_end(list);
    abandon();
}

void block_barrier(const char *what) {
    current->state = State::block;
    current->what = what;
    blocks[current->rank].at_barrier++;
    to_scheduler();
}

void cluster_barrier() {
    current->state = State::cluster;
    current->what = "the barrier of the cluster";
    at_cluster++;
    to_scheduler();
}

void named_barrier(int id, int count, bool wait) {
    Named &b = blocks[current->rank].named[id];
    if (b.arrived && b.expected != count) fail("barrier %d is used with %d and with %d threads", id, b.expected, count);
    b.expected = count;
    b.arrived++;
    if (b.arrived == count) {
        b.arrived = 0;
        for (Thread &t : threads)
            if (t.rank == current->rank && t.state == State::named && t.barrier == id) t.state = State::ready;
        return;
    }
    if (!wait) return;
    current->state = State::named;
    current->barrier = id;
    current->what = "a named barrier";
    to_scheduler();
}

unsigned thread_number() { return static_cast<unsigned>(current - threads.data()); }
unsigned block_rank() { return current->rank; }
unsigned cluster_size() { return static_cast<unsigned>(blocks.size()); }

unsigned lane() { return static_cast<unsigned>(thread_number() % block_size()) % 32; }

static Thread *warp() { return current - lane(); }

static unsigned warp_lanes() {
    const Thread *end = threads.data() + (current->rank + 1) * block_size();
    const size_t left = static_cast<size_t>(end - warp());
    return left >= 32 ? 32 : static_cast<unsigned>(left);
}

unsigned active_lanes() {
    unsigned mask = 0;
    for (unsigned i = 0; i < warp_lanes(); i++)
        if (warp()[i].state != State::done) mask |= 1u << i;
    return mask;
}

void collective(unsigned mask, void *mine, Collective all, const char *what) {
    Thread *lanes = warp();
    const unsigned n = warp_lanes(), me = lane();
    if (n < 32 && mask == 0xffffffffu) mask = (1u << n) - 1; // the last warp of a block may be short
    if (!(mask >> me & 1)) fail("%s: lane %u is not in its own mask %08x", what, me, mask);
    current->mask = mask;
    current->posted = mine;
    current->all = all;
    current->what = what;
    current->state = State::warp;
    void *posted[32] = {};
    for (unsigned i = 0; i < 32; i++) {
        if (!(mask >> i & 1)) continue;
        if (i >= n || lanes[i].state == State::done) fail("%s: lane %u of the mask %08x has ended", what, i, mask);
        if (lanes[i].state != State::warp) {
            to_scheduler();
            return; // the last one has done the work
        }
        if (lanes[i].mask != mask || lanes[i].all != all)
            fail("%s meets %s of lane %u, or another mask", what, lanes[i].what, i);
        posted[i] = lanes[i].posted;
    }
    all(posted, mask);
    for (unsigned i = 0; i < n; i++)
        if (mask >> i & 1) lanes[i].state = State::ready;
}

void wait_until(bool (*ready)(void *), void *data, const char *what) {
    if (ready(data)) return;
    current->state = State::polls;
    current->is_ready = ready;
    current->data = data;
    current->what = what;
    to_scheduler();
}

void *dynamic_shared() { return blocks[current->rank].dynamic_memory; }
void *dynamic_shared_of(unsigned rank) {
    if (rank >= blocks.size()) fail("there is no block %u in the cluster", rank);
    if (blocks[rank].done == block_size()) fail("block %u of the cluster has ended", rank);
    return blocks[rank].dynamic_memory;
}

size_t dynamic_shared_bytes() { return dynamic_bytes; }

void copy_async(const Copy &copy) { current->open.push_back(copy); }

void perform(const Copy &c) {
    if (c.read) memcpy(c.to, c.from, static_cast<size_t>(c.read));
    memset(static_cast<char *>(c.to) + c.read, 0, static_cast<size_t>(c.bytes - c.read));
}

void commit_copies() {
    current->groups.push_back(std::move(current->open));
    current->open.clear();
}

void wait_copies(unsigned but_latest) {
    Thread *t = current;
    while (t->groups.size() > but_latest) {
        for (const Copy &c : t->groups.front()) perform(c);
        t->groups.pop_front();
    }
}

std::vector<Copy> take_copies() { return std::exchange(current->open, {}); }

const char *(*on_block_end)();
bool reversed;

} // namespace machine

using namespace machine;

// Dynamic shared memory ends where a page without access begins.
static char *guarded(size_t bytes) {
    const size_t room = (bytes + PAGE - 1) / PAGE * PAGE;
    auto *memory = static_cast<char *>(
        mmap(nullptr, room + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory == MAP_FAILED) return nullptr;
    mprotect(memory + room, PAGE, PROT_NONE);
    return memory + room - (bytes + 127) / 128 * 128;
}

const machine::Kernel *emulated_kernel(const char *name) {
    for (size_t i = 0; i < emulated_kernel_count; i++)
        if (!strcmp(emulated_kernels[i].name, name)) return &emulated_kernels[i];
    return nullptr;
}

const char *emulated_error() { return message; }

int emulated_tensor_map(TensorMap *map, int type, uint32_t rank, void *base, const uint64_t *shape,
                        const uint64_t *strides, const uint32_t *box, int swizzle) {
    return encode_tensor_map(map, type, rank, base, shape, strides, box, swizzle);
}

int emulated_launch(const machine::Kernel *which, const unsigned grid[3], const unsigned block[3], unsigned shared,
                    void **values, int reverse) {
    std::lock_guard<std::mutex> lock(one_launch);
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    struct sigaction mine{}, before[4];
    stack_t stack{}, stack_before;
    stack.ss_sp = signal_stack;
    stack.ss_size = sizeof signal_stack;
    sigaltstack(&stack, &stack_before);
    mine.sa_sigaction = on_signal;
    mine.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 4; i++) sigaction(numbers[i], &mine, &before[i]);

    kernel = which;
    reversed = reverse;
    arguments = values;
    failed = false;
    message[0] = 0;
    gridDim = dim3(grid[0], grid[1], grid[2]);
    blockDim = dim3(block[0], block[1], block[2]);
    const size_t each = static_cast<size_t>(block[0]) * block[1] * block[2];
    threads.assign(which->cluster * each, Thread{});
    for (size_t i = 0; i < threads.size(); i++) {
        const size_t number = i % each;
        threads[i].rank = static_cast<unsigned>(i / each);
        threads[i].index = {static_cast<unsigned>(number % block[0]), static_cast<unsigned>(number / block[0] % block[1]),
                            static_cast<unsigned>(number / block[0] / block[1])};
    }
    reset_fibers();
    dynamic_bytes = shared;
    blocks.assign(which->cluster, Block{});
    for (Block &b : blocks) b.dynamic_memory = guarded(shared);
    if (grid[0] % which->cluster) {
        failed = true;
        snprintf(message, sizeof message, "kernel %s: a grid of %u is not in clusters of %u", which->name, grid[0],
                 which->cluster);
    }
    if (__start_graphc_shared)
        memset(__start_graphc_shared, POISON, static_cast<size_t>(__stop_graphc_shared - __start_graphc_shared));
    running = 1;
    const unsigned long long clusters = static_cast<unsigned long long>(grid[0]) * grid[1] * grid[2] / which->cluster;
    for (unsigned long long c = 0; c < clusters && !failed; c++) {
        unsigned long long at = (reverse ? clusters - 1 - c : c) * which->cluster;
        for (Block &b : blocks) {
            b.index = blockIdx = {static_cast<unsigned>(at % grid[0]), static_cast<unsigned>(at / grid[0] % grid[1]),
                                  static_cast<unsigned>(at / grid[0] / grid[1])};
            if (shared) memset(b.dynamic_memory, POISON, shared);
            at++;
        }
        run_cluster(reverse);
    }
    running = 0;
    const size_t room = (dynamic_bytes + PAGE - 1) / PAGE * PAGE;
    for (const Block &b : blocks) munmap(b.dynamic_memory + (dynamic_bytes + 127) / 128 * 128 - room, room + PAGE);
    for (int i = 0; i < 4; i++) sigaction(numbers[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
    return failed ? 700 : 0;
}
