// CUDA C++ as g++ understands it: what kernels take for granted, with the meaning it has on a GPU (CUDA C++ Programming
// Guide, "C++ Language Extensions", and the math API). Included before an emulated program.
#ifndef GRAPHC_DEVICE_H
#define GRAPHC_DEVICE_H

#include "machine.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#define GRAPHC_EMULATED 1
#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __attribute__((section("graphc_shared")))
#define __builtin_assume(x) ((void)0)
#define __assume(x) ((void)0)

#define VECTOR3(type, name)                                                                                            \
    struct name##3 { type x, y, z; };
VECTOR3(signed char, char)
VECTOR3(unsigned char, uchar)
VECTOR3(short, short)
VECTOR3(unsigned short, ushort)
VECTOR3(int, int)
VECTOR3(long, long)
VECTOR3(unsigned long, ulong)
VECTOR3(long long, longlong)
VECTOR3(unsigned long long, ulonglong)
VECTOR3(float, float)
VECTOR3(double, double)
#undef VECTOR3 // uint3 is in machine.h
#define VECTOR(type, name, align2, align4)                                                                             \
    struct name##1 { type x; };                                                                                        \
    struct __align__(align2) name##2 { type x, y; };                                                                   \
    struct __align__(align4) name##4 { type x, y, z, w; };                                                             \
    inline name##1 make_##name##1(type x) { return {x}; }                                                              \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                                   \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                                        \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
VECTOR(signed char, char, 2, 4)
VECTOR(unsigned char, uchar, 2, 4)
VECTOR(short, short, 4, 8)
VECTOR(unsigned short, ushort, 4, 8)
VECTOR(int, int, 8, 16)
VECTOR(unsigned, uint, 8, 16)
VECTOR(long, long, 16, 16)
VECTOR(unsigned long, ulong, 16, 16)
VECTOR(long long, longlong, 16, 16)
VECTOR(unsigned long long, ulonglong, 16, 16)
VECTOR(float, float, 8, 16)
VECTOR(double, double, 16, 16)
#undef VECTOR

// ---- waiting for other threads

inline void __syncthreads() { machine::block_barrier("__syncthreads"); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    machine::collective(mask, nullptr, [](void **, unsigned) {}, "__syncwarp");
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline unsigned __activemask() { return machine::active_lanes(); }

namespace machine {

template <class T>
struct Shuffle {
    T value, result;
    int from;
};

// `from` is the lane to read; outside its segment of `width` lanes a lane keeps its own value.
template <class T>
T shuffle(unsigned mask, T value, int from, const char *what) {
    Shuffle<T> mine{value, value, from};
    collective(
        mask, &mine,
        [](void **posted, unsigned all) {
            for (unsigned i = 0; i < 32; i++) {
                if (!(all >> i & 1)) continue;
                auto *to = static_cast<Shuffle<T> *>(posted[i]);
                if (to->from < 0) continue;
                if (!posted[to->from]) fail("a shuffle reads lane %d, which is not in its mask %08x", to->from, all);
                to->result = static_cast<Shuffle<T> *>(posted[to->from])->value;
            }
        },
        what);
    return mine.result;
}

struct Vote {
    int predicate;
    unsigned ballot;
};
inline unsigned vote(unsigned mask, int predicate, const char *what) {
    Vote mine{predicate, 0};
    collective(
        mask, &mine,
        [](void **posted, unsigned all) {
            unsigned ballot = 0;
            for (unsigned i = 0; i < 32; i++)
                if (all >> i & 1 && static_cast<Vote *>(posted[i])->predicate) ballot |= 1u << i;
            for (unsigned i = 0; i < 32; i++)
                if (all >> i & 1) static_cast<Vote *>(posted[i])->ballot = ballot;
        },
        what);
    return mine.ballot;
}

// Whole vectors and 16-bit types are exchanged like any other value.
inline int segment(int width) { return static_cast<int>(lane()) / width * width; }

} // namespace machine

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    return machine::shuffle(mask, value, machine::segment(width) + (from & (width - 1)), "__shfl_sync");
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int from = static_cast<int>(machine::lane()) - static_cast<int>(delta);
    return machine::shuffle(mask, value, from < machine::segment(width) ? -1 : from, "__shfl_up_sync");
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int from = static_cast<int>(machine::lane() + delta);
    return machine::shuffle(mask, value, from >= machine::segment(width) + width ? -1 : from, "__shfl_down_sync");
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    const int from = static_cast<int>(machine::lane()) ^ bits;
    return machine::shuffle(mask, value, from >= machine::segment(width) + width ? -1 : from, "__shfl_xor_sync");
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return machine::vote(mask, predicate, "__ballot_sync"); }
inline int __any_sync(unsigned mask, int predicate) { return machine::vote(mask, predicate, "__any_sync") != 0; }
inline int __all_sync(unsigned mask, int predicate) { return machine::vote(mask, !predicate, "__all_sync") == 0; }
inline int __syncthreads_or(int predicate) {
    static int any;
    machine::block_barrier("__syncthreads_or");
    any = 0;
    machine::block_barrier("__syncthreads_or");
    any |= predicate != 0;
    machine::block_barrier("__syncthreads_or");
    return any;
}
inline int __syncthreads_and(int predicate) { return !__syncthreads_or(!predicate); }

// ---- atomics: threads run one at a time

#define ATOMIC(name, update)                                                                                           \
    template <class T>                                                                                                 \
    T name(T *at, std::common_type_t<T> value) {                                                                       \
        const T old = *at;                                                                                             \
        *at = static_cast<T>(update);                                                                                  \
        return old;                                                                                                    \
    }
ATOMIC(atomicAdd, old + value)
ATOMIC(atomicSub, old - value)
ATOMIC(atomicExch, value)
ATOMIC(atomicMax, old > value ? old : value)
ATOMIC(atomicMin, old < value ? old : value)
ATOMIC(atomicAnd, old &value)
ATOMIC(atomicOr, old | value)
ATOMIC(atomicXor, old ^ value)
ATOMIC(atomicInc, old >= value ? 0 : old + 1)
#undef ATOMIC
template <class T>
T atomicCAS(T *at, std::common_type_t<T> expected, std::common_type_t<T> value) {
    const T old = *at;
    if (old == expected) *at = value;
    return old;
}

// ---- arithmetic

#define EXTREMES(type)                                                                                                 \
    inline type max(type a, type b) { return a > b ? a : b; }                                                          \
    inline type min(type a, type b) { return a < b ? a : b; }
EXTREMES(int)
EXTREMES(unsigned)
EXTREMES(long)
EXTREMES(unsigned long)
EXTREMES(long long)
EXTREMES(unsigned long long)
#undef EXTREMES
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double max(double a, float b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double min(double a, float b) { return fmin(a, b); }

template <class To, class From>
To machine_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}
inline int __float_as_int(float x) { return machine_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return machine_bits<unsigned>(x); }
inline float __int_as_float(int x) { return machine_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return machine_bits<float>(x); }
inline long long __double_as_longlong(double x) { return machine_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return machine_bits<double>(x); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float exp10f(float x) { return powf(10.0f, x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752f); }
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline int __float2int_rn(float x) { return static_cast<int>(nearbyintf(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
inline int __float2int_ru(float x) { return static_cast<int>(ceilf(x)); }
inline unsigned __float2uint_rn(float x) { return static_cast<unsigned>(nearbyintf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>(1ull * x * y >> 32); }
inline int __mulhi(int x, int y) { return static_cast<int>(1ll * x * y >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}
inline unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (x >> i & 1) << (31 - i);
    return r;
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s) {
    const unsigned long long both = static_cast<unsigned long long>(y) << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= static_cast<unsigned>(both >> (8 * (s >> (4 * i) & 7)) & 0xff) << (8 * i);
    return r;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) << (n & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >> (n & 31));
}

template <class T>
T __ldg(const T *at) {
    return *at;
}
template <class T>
T __ldcs(const T *at) {
    return *at;
}
template <class T>
T __ldcg(const T *at) {
    return *at;
}
template <class T>
void __stcs(T *at, std::common_type_t<T> value) {
    *at = value;
}
template <class T>
void __stcg(T *at, std::common_type_t<T> value) {
    *at = value;
}
inline long long clock64() { return 0; }
inline void __nanosleep(unsigned) {}
inline void __trap() { machine::fail("__trap"); }

// What a kernel gets as `const __grid_constant__ CUtensorMap`; the stand-in driver fills it in.
struct alignas(64) CUtensorMap {
    unsigned long long opaque[16];
};

#include "ptx.h"
#include "hopper.h"

// ---- how the launcher calls a kernel

namespace machine {

template <class T>
T argument(const void *from) {
    T value; // the launcher's copy may lie anywhere
    memcpy(&value, from, sizeof value);
    return value;
}

template <auto F>
struct Entry;
template <class... A, void (*F)(A...)>
struct Entry<F> {
    static inline const size_t sizes[] = {sizeof(A)..., 0};
    static constexpr size_t count = sizeof...(A);
    template <size_t... I>
    static void call(void **p, std::index_sequence<I...>) {
        F(argument<std::remove_cv_t<A>>(p[I])...);
    }
    static void invoke(void **p) { call(p, std::make_index_sequence<count>()); }
};

} // namespace machine

#endif
