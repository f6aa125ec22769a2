// A stand-in for libcuda.so.1: the driver functions that modules use, over memory of this process and kernels that the
// emulator compiled (machine.h). A module's "machine code" is then a shared object.
//
// Work is put off as long as a driver may: each stream is a queue that runs when somebody waits for it, so that a
// missing wait shows. Device memory cannot be touched but by the driver, ends where a page without access begins, and
// begins as 0xff. Calls without a current context fail.
#include "machine.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {

using Result = int;
using Pointer = uint64_t;
enum {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_FOUND = 500,
    NO_CONTEXT = 201,
    BAD_IMAGE = 200,
    BAD_CAPTURE = 901
};
constexpr size_t PAGE = 4096;

std::recursive_mutex lock;
using Guard = std::lock_guard<std::recursive_mutex>;

// What tests set (fake_set) and read (fake_get).
std::map<std::string, long long> settings = {{"devices", 1},        {"major", 9}, {"minor", 0},  {"version", 13000},
                                             {"memory", 1ll << 40}, {"init", 0},  {"reverse", 0}};
std::map<std::string, long long> counts;

struct Allocation {
    char *map;
    size_t mapped, bytes;
};
std::map<Pointer, Allocation> memory; // by first address
long long allocated;

struct Stream {
    std::deque<std::function<void()>> waiting;
    uint64_t put = 0, done = 0;
    bool capturing = false;
    std::vector<std::function<void()>> captured;
};
struct Event {
    Stream *stream = nullptr;
    uint64_t position = 0;
    std::chrono::steady_clock::time_point time;
};
struct Graph {
    std::vector<std::function<void()>> work;
};
struct Function {
    const machine::Kernel *kernel;
    decltype(&emulated_launch) launch;
    decltype(&emulated_error) error;
    long long shared = 48 << 10;
};
struct Module {
    void *library;
    std::vector<Function *> functions;
};

Stream default_stream;
std::vector<Stream *> streams;
Result sticky; // what a kernel did wrong; nothing works afterwards
std::string message;
thread_local int contexts;

void protect(int access) {
    for (auto &[at, a] : memory) mprotect(a.map, a.mapped, access);
}
struct Open { // device memory, while the driver works on it
    Open() { protect(PROT_READ | PROT_WRITE); }
    ~Open() { protect(PROT_NONE); }
};

Stream *find(Stream *s) { return s == nullptr || s == reinterpret_cast<Stream *>(1) ? &default_stream : s; }

void run(Stream *s, uint64_t until) {
    while (s->done < until && !s->waiting.empty()) {
        auto work = std::move(s->waiting.front());
        s->waiting.pop_front();
        s->done++;
        if (!sticky) work();
    }
}
void run_all() {
    run(&default_stream, default_stream.put);
    for (Stream *s : streams) run(s, s->put);
}

Result put(Stream *s, std::function<void()> work) {
    if (!contexts) return NO_CONTEXT;
    if (sticky) return sticky;
    s = find(s);
    if (s->capturing) s->captured.push_back(std::move(work));
    else {
        s->waiting.push_back(std::move(work));
        s->put++;
    }
    return OK;
}

const Allocation *holder(Pointer at) {
    auto next = memory.upper_bound(at);
    if (next == memory.begin()) return nullptr;
    --next;
    return at < next->first + next->second.bytes ? &next->second : nullptr;
}

void copy(Pointer to, Pointer from, size_t bytes) {
    Open open;
    memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
}

} // namespace

API void fake_set(const char *name, long long value) { settings[name] = value; }
API long long fake_get(const char *name) { return counts[name]; }
API void fake_reset() { // as of a new process
    Guard guard(lock);
    sticky = 0;
    counts.clear();
}
API const char *fake_message() { return message.c_str(); }
// Reading and writing device memory from tests.
API void fake_copy(uint64_t to, uint64_t from, size_t bytes) {
    Guard guard(lock);
    run_all();
    copy(to, from, bytes);
}
API long long fake_live() { return static_cast<long long>(memory.size()); }

API Result cuInit(unsigned) { return static_cast<Result>(settings["init"]); }
API Result cuDriverGetVersion(int *version) {
    *version = static_cast<int>(settings["version"]);
    return OK;
}
API Result cuGetErrorName(Result r, const char **text) {
    *text = r == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
            : r == 700         ? "CUDA_ERROR_ILLEGAL_ADDRESS"
                               : "CUDA_ERROR_OTHER";
    return OK;
}
API Result cuGetErrorString(Result r, const char **text) {
    *text = r == OUT_OF_MEMORY ? "out of memory" : r == 700 ? message.c_str() : "an error of the stand-in driver";
    return OK;
}
// NVRTC asks a loaded driver for tables of its own.
API Result cuGetExportTable(const void **table, const void *) {
    *table = nullptr;
    return NOT_FOUND;
}
API Result cuDeviceGetCount(int *n) {
    *n = static_cast<int>(settings["devices"]);
    return OK;
}
API Result cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return OK;
}
API Result cuDeviceGetName(char *name, int size, int) {
    snprintf(name, static_cast<size_t>(size), "Stand-in");
    return OK;
}
API Result cuDeviceGetAttribute(int *value, int attribute, int) {
    *value = static_cast<int>(settings[attribute == 75 ? "major" : "minor"]);
    return OK;
}
API Result cuDevicePrimaryCtxRetain(void **context, int) {
    *context = &settings;
    return OK;
}
API Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
API Result cuCtxPushCurrent_v2(void *) {
    contexts++;
    return OK;
}
API Result cuCtxPopCurrent_v2(void **old) {
    if (!contexts || !old) return contexts ? INVALID_VALUE : NO_CONTEXT;
    contexts--;
    *old = &settings;
    return OK;
}

API Result cuModuleLoadDataEx(Module **module, const void *image, unsigned n, int *options, void **values) {
    if (!contexts) return NO_CONTEXT;
    const auto *bytes = static_cast<const unsigned char *>(image);
    if (memcmp(bytes, "\177ELF", 4)) {
        for (unsigned i = 0; i < n; i++)
            if (options[i] == 5) snprintf(static_cast<char *>(values[i]), 1024, "no emulated program");
        return BAD_IMAGE;
    }
    uint64_t sections; // the section headers come last in the file
    uint16_t size, number;
    memcpy(&sections, bytes + 40, 8);
    memcpy(&size, bytes + 58, 2);
    memcpy(&number, bytes + 60, 2);
    char path[] = "/tmp/graphc-program-XXXXXX"; // a name of its own: the dynamic linker goes by names
    const int file = mkstemp(path);
    const size_t total = sections + 1ull * size * number;
    if (write(file, bytes, total) != static_cast<ssize_t>(total)) return OUT_OF_MEMORY;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    close(file);
    unlink(path);
    if (!library || !dlsym(library, "emulated_launch")) {
        message = library ? "a real cubin?" : dlerror();
        return BAD_IMAGE;
    }
    *module = new Module{library, {}};
    counts["modules"]++;
    return OK;
}
API Result cuModuleUnload(Module *module) {
    Guard guard(lock);
    run_all();
    for (Function *f : module->functions) delete f;
    delete module; // the library stays: captured work may refer to it
    counts["modules"]--;
    return OK;
}
API Result cuModuleGetFunction(Function **function, Module *module, const char *name) {
    auto find_kernel = reinterpret_cast<decltype(&emulated_kernel)>(dlsym(module->library, "emulated_kernel"));
    const machine::Kernel *kernel = find_kernel(name);
    if (!kernel) return NOT_FOUND;
    *function =
        new Function{kernel, reinterpret_cast<decltype(&emulated_launch)>(dlsym(module->library, "emulated_launch")),
                     reinterpret_cast<decltype(&emulated_error)>(dlsym(module->library, "emulated_error"))};
    module->functions.push_back(*function);
    return OK;
}
API Result cuFuncSetAttribute(Function *function, int attribute, int value) {
    if (attribute != 8 || value > 227 << 10) return INVALID_VALUE;
    function->shared = value;
    return OK;
}

API Result cuMemAlloc_v2(Pointer *at, size_t bytes) {
    Guard guard(lock);
    if (!contexts) return NO_CONTEXT;
    if (sticky) return sticky;
    if (!bytes) return INVALID_VALUE;
    if (allocated + static_cast<long long>(bytes) > settings["memory"]) return OUT_OF_MEMORY;
    const size_t room = (bytes + PAGE - 1) / PAGE * PAGE;
    auto *map = static_cast<char *>(
        mmap(nullptr, room + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (map == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(map + room, PAGE, PROT_NONE);
    char *first = map + room - (bytes + 15) / 16 * 16;
    if (bytes > 1 << 20) first = map + room - (bytes + 255) / 256 * 256; // what holds weights and the arena
    memset(first, 0xff, bytes);
    mprotect(map, room, PROT_NONE);
    *at = reinterpret_cast<Pointer>(first);
    memory[*at] = {map, room, bytes};
    allocated += static_cast<long long>(bytes);
    counts["allocations"]++;
    return OK;
}
API Result cuMemFree_v2(Pointer at) {
    Guard guard(lock);
    if (!contexts) return NO_CONTEXT;
    run_all();
    auto found = memory.find(at);
    if (found == memory.end()) return INVALID_VALUE;
    allocated -= static_cast<long long>(found->second.bytes);
    munmap(found->second.map, found->second.mapped + PAGE);
    memory.erase(found);
    return sticky;
}
API Result cuMemHostAlloc(void **at, size_t bytes, unsigned) {
    *at = malloc(bytes);
    return *at ? OK : OUT_OF_MEMORY;
}
API Result cuMemFreeHost(void *at) {
    free(at);
    return OK;
}

static Result queue_copy(Pointer to, Pointer from, size_t bytes, Stream *s) {
    Guard guard(lock);
    s = find(s);
    const bool from_host = !holder(from), to_host = !holder(to);
    counts[from_host ? "copies in" : to_host ? "copies out" : "copies"]++;
    Result result;
    if (from_host) { // ordinary memory is read before the call returns
        std::vector<char> data(reinterpret_cast<char *>(from), reinterpret_cast<char *>(from) + bytes);
        result = put(s, [=, data = std::move(data)] { copy(to, reinterpret_cast<Pointer>(data.data()), bytes); });
    } else result = put(s, [=] { copy(to, from, bytes); });
    return result;
}
API Result cuMemcpyAsync(Pointer to, Pointer from, size_t bytes, Stream *s) { return queue_copy(to, from, bytes, s); }
API Result cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, Stream *s) {
    if (!holder(to) || holder(reinterpret_cast<Pointer>(from))) return INVALID_VALUE;
    return queue_copy(to, reinterpret_cast<Pointer>(from), bytes, s);
}
API Result cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t bytes, Stream *s) {
    if (!holder(from) || holder(reinterpret_cast<Pointer>(to))) return INVALID_VALUE;
    return queue_copy(reinterpret_cast<Pointer>(to), from, bytes, s);
}
API Result cuMemsetD8Async(Pointer to, unsigned char value, size_t bytes, Stream *s) {
    Guard guard(lock);
    return put(s, [=] {
        Open open;
        memset(reinterpret_cast<void *>(to), value, bytes);
    });
}
API Result cuPointerGetAttribute(void *value, int attribute, Pointer at) {
    Guard guard(lock);
    if (!holder(at)) return INVALID_VALUE;
    const int answer = attribute == 2 ? 2 : static_cast<int>(settings["ordinal"]);
    memcpy(value, &answer, sizeof answer);
    return OK;
}

API Result cuStreamCreate(Stream **s, unsigned) {
    Guard guard(lock);
    if (!contexts) return NO_CONTEXT;
    *s = new Stream;
    streams.push_back(*s);
    return OK;
}
API Result cuStreamDestroy_v2(Stream *s) {
    Guard guard(lock);
    run_all();
    streams.erase(std::find(streams.begin(), streams.end(), s));
    return OK; // not deleted: events may refer to it
}
API Result cuStreamSynchronize(Stream *s) {
    Guard guard(lock);
    s = find(s);
    if (s->capturing) return BAD_CAPTURE;
    run(s, s->put);
    return sticky;
}
API Result cuEventCreate(Event **e, unsigned) {
    if (!contexts) return NO_CONTEXT;
    *e = new Event;
    return OK;
}
API Result cuEventDestroy_v2(Event *) { return OK; }
API Result cuEventRecord(Event *e, Stream *s) {
    Guard guard(lock);
    s = find(s);
    if (s->capturing) return BAD_CAPTURE;
    const Result result = put(s, [=] { e->time = std::chrono::steady_clock::now(); });
    e->stream = s;
    e->position = s->put;
    return result;
}
API Result cuEventSynchronize(Event *e) {
    Guard guard(lock);
    if (e->stream) run(e->stream, e->position);
    return sticky;
}
API Result cuStreamWaitEvent(Stream *s, Event *e, unsigned) {
    Guard guard(lock);
    Stream *other = e->stream;
    const uint64_t position = e->position;
    if (!other) return OK;
    return put(s, [=] { run(other, position); });
}
API Result cuEventElapsedTime(float *milliseconds, Event *a, Event *b) {
    *milliseconds = std::chrono::duration<float, std::milli>(b->time - a->time).count();
    return OK;
}

API Result cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                          unsigned shared, Stream *s, void **arguments, void **) {
    Guard guard(lock);
    if (!gx || !gy || !gz || !bx || bx * by * bz > 1024 || shared > f->shared) return INVALID_VALUE;
    std::vector<std::vector<char>> values; // read now: the caller's variables go
    for (size_t i = 0; i < f->kernel->arguments; i++) {
        const auto *at = static_cast<const char *>(arguments[i]);
        values.emplace_back(at, at + f->kernel->sizes[i]);
    }
    counts["launches"]++;
    return put(s, [=]() mutable {
        Open open;
        std::vector<void *> places;
        std::vector<std::vector<char>> aligned;
        for (auto &v : values) { // structs want their own alignment
            aligned.emplace_back(v.size() + 64);
            auto *at = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(aligned.back().data()) + 63) / 64 * 64);
            memcpy(at, v.data(), v.size());
            places.push_back(at);
        }
        const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
        const int result =
            f->launch(f->kernel, grid, block, shared, places.data(), static_cast<int>(settings["reverse"]));
        counts["executed"]++;
        if (result) {
            sticky = result;
            message = f->error();
        }
    });
}

API Result cuStreamBeginCapture_v2(Stream *s, int) {
    Guard guard(lock);
    if (settings["no capture"]) return BAD_CAPTURE;
    s->capturing = true;
    s->captured.clear();
    return OK;
}
API Result cuStreamEndCapture(Stream *s, Graph **graph) {
    Guard guard(lock);
    s->capturing = false;
    *graph = new Graph{s->captured};
    counts["captures"]++;
    return OK;
}
API Result cuGraphDestroy(Graph *graph) {
    delete graph;
    return OK;
}
API Result cuGraphInstantiateWithFlags(Graph **exec, Graph *graph, unsigned long long) {
    *exec = new Graph(*graph);
    return OK;
}
API Result cuGraphExecDestroy(Graph *exec) {
    Guard guard(lock);
    run_all();
    delete exec;
    return OK;
}
API Result cuGraphLaunch(Graph *exec, Stream *s) {
    Guard guard(lock);
    counts["graphs"]++;
    for (auto &work : exec->work)
        if (const Result result = put(s, work)) return result;
    return OK;
}
API Result cuTensorMapEncodeTiled(machine::TensorMap *map, int type, uint32_t rank, void *base, const uint64_t *shape,
                                  const uint64_t *strides, const uint32_t *box, const uint32_t *, int, int swizzle, int,
                                  int) {
    return machine::encode_tensor_map(map, type, rank, base, shape, strides, box, swizzle) ? OK : INVALID_VALUE;
}
