/* What every kernel may call. An emulator (GRAPHC_EMULATED) brings its own bodies for what is PTX here. */

#if !defined(GRAPHC_EMULATED)
#pragma nv_diag_suppress 177 /* functions that no kernel of this module calls */
#endif

#ifndef CUDART_INF_F
#define CUDART_INF_F __int_as_float(0x7f800000)
#define CUDART_NAN_F __int_as_float(0x7fffffff)
#define CUDART_INF __longlong_as_double(0x7ff0000000000000ll)
#define CUDART_NAN __longlong_as_double(0x7fffffffffffffffll)
#endif

/* The short names of unsigned types in the generated text. */
#define uchar unsigned char
#define ushort unsigned short
#define uint unsigned int

#define GRAPHC_INLINE static __device__ __forceinline__

/* ---- Moving several elements with one instruction: both ends are aligned to their size. ---- */

GRAPHC_INLINE void graphc_copy_1(void *to, const void *from) { *(unsigned char *)to = *(const unsigned char *)from; }
GRAPHC_INLINE void graphc_copy_2(void *to, const void *from) { *(unsigned short *)to = *(const unsigned short *)from; }
GRAPHC_INLINE void graphc_copy_4(void *to, const void *from) { *(unsigned int *)to = *(const unsigned int *)from; }
GRAPHC_INLINE void graphc_copy_8(void *to, const void *from) { *(uint2 *)to = *(const uint2 *)from; }
GRAPHC_INLINE void graphc_copy_16(void *to, const void *from) { *(uint4 *)to = *(const uint4 *)from; }

/* Zeros where a condition does not hold; nothing is read then. */
#define GRAPHC_COPY_IF(bytes, type)                                                                                    \
  GRAPHC_INLINE void graphc_copy_##bytes##_if(bool holds, void *to, const void *from) {                                \
    type value = {};                                                                                                   \
    if (holds) value = *(const type *)from;                                                                            \
    *(type *)to = value;                                                                                               \
  }
GRAPHC_COPY_IF(1, unsigned char)
GRAPHC_COPY_IF(2, unsigned short)
GRAPHC_COPY_IF(4, unsigned int)
GRAPHC_COPY_IF(8, uint2)
GRAPHC_COPY_IF(16, uint4)
#undef GRAPHC_COPY_IF
template <typename T> GRAPHC_INLINE void graphc_write(void *to, T value) { *(T *)to = value; }
template <typename T> GRAPHC_INLINE T graphc_read(const void *from) { return *(const T *)from; }

/* ---- Half precision: 16-bit words in memory, float in registers, rounded to nearest even. ---- */

#ifndef GRAPHC_EMULATED
GRAPHC_INLINE float graphc_widen_f16(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
GRAPHC_INLINE unsigned short graphc_narrow_f16(float value) {
  unsigned int bits; /* the instruction for two is several times as fast as the one for one */
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(0.0f), "f"(value));
  return (unsigned short)bits;
}
GRAPHC_INLINE unsigned short graphc_narrow_bf16(float value) {
  unsigned int bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(0.0f), "f"(value));
  return (unsigned short)bits;
}
/* Two neighbours at once, aligned to both. */
GRAPHC_INLINE void graphc_narrow_two_f16(unsigned short *to, float first, float second) {
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(*(unsigned int *)to) : "f"(second), "f"(first));
}
GRAPHC_INLINE void graphc_narrow_two_bf16(unsigned short *to, float first, float second) {
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(*(unsigned int *)to) : "f"(second), "f"(first));
}
#endif
GRAPHC_INLINE float graphc_widen_bf16(unsigned short bits) { return __uint_as_float((unsigned int)bits << 16); }
GRAPHC_INLINE float graphc_round_f16(float value) { return graphc_widen_f16(graphc_narrow_f16(value)); }
GRAPHC_INLINE float graphc_round_bf16(float value) { return graphc_widen_bf16(graphc_narrow_bf16(value)); }

/* How elements lie in memory. */
template <typename T> struct graphc_stored {
  typedef T type;
  static __device__ __forceinline__ T widen(T x) { return x; }
  static __device__ __forceinline__ T narrow(T x) { return x; }
};
typedef graphc_stored<float> graphc_stored_f32;
typedef graphc_stored<double> graphc_stored_f64;
typedef graphc_stored<int64_t> graphc_stored_i64;
typedef graphc_stored<int> graphc_stored_i32;
typedef graphc_stored<short> graphc_stored_i16;
typedef graphc_stored<signed char> graphc_stored_i8;
typedef graphc_stored<unsigned char> graphc_stored_u8;
struct graphc_stored_bf16 {
  typedef unsigned short type;
  static __device__ __forceinline__ float widen(unsigned short x) { return graphc_widen_bf16(x); }
  static __device__ __forceinline__ unsigned short narrow(float x) { return graphc_narrow_bf16(x); }
};
struct graphc_stored_f16 {
  typedef unsigned short type;
  static __device__ __forceinline__ float widen(unsigned short x) { return graphc_widen_f16(x); }
  static __device__ __forceinline__ unsigned short narrow(float x) { return graphc_narrow_f16(x); }
};

/* ---- Arithmetic with NumPy's meaning. ---- */

template <typename T> GRAPHC_INLINE bool graphc_isnan(T x) { return x != x; }
/* NaN if either is NaN. */
template <typename T> GRAPHC_INLINE T graphc_max(T a, T b) { return a > b || a != a ? a : b; }
template <typename T> GRAPHC_INLINE T graphc_min(T a, T b) { return a < b || a != a ? a : b; }
template <typename T> GRAPHC_INLINE T graphc_sign(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x; }
GRAPHC_INLINE float graphc_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
GRAPHC_INLINE double graphc_sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

/* Quotients rounded down; the remainder has the divisor's sign. A divisor of 0 gives 0 in integers. */
template <typename T> GRAPHC_INLINE T graphc_floordiv_int(T a, T b) {
  if (b == T(0)) return T(0);
  if (b == T(-1) && T(-1) < T(0)) return (T)(T(0) - a);
  T q = (T)(a / b), r = (T)(a - q * b);
  return r != T(0) && (r < T(0)) != (b < T(0)) ? (T)(q - T(1)) : q;
}
template <typename T> GRAPHC_INLINE T graphc_mod_int(T a, T b) {
  if (b == T(0) || (b == T(-1) && T(-1) < T(0))) return T(0);
  T r = (T)(a % b);
  return r != T(0) && (r < T(0)) != (b < T(0)) ? (T)(r + b) : r;
}
GRAPHC_INLINE float graphc_fmod(float a, float b) { return fmodf(a, b); }
GRAPHC_INLINE double graphc_fmod(double a, double b) { return fmod(a, b); }
template <typename T> GRAPHC_INLINE T graphc_mod_float(T a, T b) {
  T r = graphc_fmod(a, b);
  if (b == T(0)) return r;
  if (r != T(0)) return (b < T(0)) != (r < T(0)) ? r + b : r;
  return (T)copysign((double)T(0), (double)b);
}
template <typename T> GRAPHC_INLINE T graphc_floordiv_float(T a, T b) {
  if (b == T(0)) return a / b;
  T r = graphc_fmod(a, b), q = (a - r) / b;
  if (r != T(0) && (b < T(0)) != (r < T(0))) q -= T(1);
  if (q == T(0)) return (T)copysign((double)T(0), (double)(a / b));
  T whole = (T)floor((double)q);
  return q - whole > T(0.5) ? whole + T(1) : whole;
}

/* ---- Random bits: element `position` of a stream of Philox-4x32-10 (ops/random.py). ---- */

GRAPHC_INLINE int graphc_random_bits(int64_t seed, int64_t step, int64_t stream, int64_t position) {
  unsigned int c0 = (unsigned int)(position >> 2), c1 = (unsigned int)stream;
  unsigned int c2 = (unsigned int)step, c3 = (unsigned int)((uint64_t)step >> 32);
  unsigned int k0 = (unsigned int)seed, k1 = (unsigned int)((uint64_t)seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    uint64_t one = (uint64_t)c0 * 0xD2511F53u, two = (uint64_t)c2 * 0xCD9E8D57u;
    c0 = (unsigned int)(two >> 32) ^ c1 ^ k0;
    c1 = (unsigned int)two;
    c2 = (unsigned int)(one >> 32) ^ c3 ^ k1;
    c3 = (unsigned int)one;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  int word = (int)(position & 3);
  return (int)(word == 0 ? c0 : word == 1 ? c1 : word == 2 ? c2 : c3);
}

/* ---- Faults: the first thread that finds the record empty fills it. ---- */

GRAPHC_INLINE void graphc_fault(void *record, int64_t id, int64_t value, int64_t position, int64_t limit) {
  unsigned long long *words = (unsigned long long *)record;
  if (atomicCAS(&words[0], 0ull, (unsigned long long)(id + 1)) == 0ull) {
    words[1] = (unsigned long long)value;
    words[2] = (unsigned long long)position;
    words[3] = (unsigned long long)limit;
  }
}

/* ---- Reductions over a team of THREADS neighbouring threads; every thread gets the result. ---- */

struct graphc_add { template <typename T> static __device__ __forceinline__ T of(T a, T b) { return (T)(a + b); } };
struct graphc_mul { template <typename T> static __device__ __forceinline__ T of(T a, T b) { return (T)(a * b); } };
struct graphc_maximum { template <typename T> static __device__ __forceinline__ T of(T a, T b) { return graphc_max(a, b); } };
struct graphc_minimum { template <typename T> static __device__ __forceinline__ T of(T a, T b) { return graphc_min(a, b); } };

template <int THREADS, typename Op, typename T> GRAPHC_INLINE T graphc_team(T value) {
#pragma unroll
  for (int step = (THREADS < 32 ? THREADS : 32) / 2; step > 0; step /= 2)
    value = Op::of(value, __shfl_xor_sync(0xffffffffu, value, step));
  if (THREADS > 32) {
    __shared__ T parts[THREADS / 32 < 1 ? 1 : THREADS / 32];
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    value = parts[0];
#pragma unroll
    for (int warp = 1; warp < THREADS / 32; warp++) value = Op::of(value, parts[warp]);
    __syncthreads();
  }
  return value;
}

/* The same over threads that have one column each: of neighbouring COLUMNS threads (a power of two up to 32), thread x has
 * column x. Every thread gets its column's result. */
template <int COLUMNS, int THREADS, typename Op, typename T> GRAPHC_INLINE T graphc_over_rows(T value) {
#pragma unroll
  for (int step = 16; step >= COLUMNS; step /= 2) value = Op::of(value, __shfl_xor_sync(0xffffffffu, value, step));
  __shared__ T parts[THREADS / 32 * COLUMNS];
  int lane = (int)threadIdx.x % 32, x = lane % COLUMNS;
  if (lane < COLUMNS) parts[threadIdx.x / 32 * COLUMNS + lane] = value;
  __syncthreads();
  value = parts[x];
#pragma unroll
  for (int warp = 1; warp < THREADS / 32; warp++) value = Op::of(value, parts[warp * COLUMNS + x]);
  __syncthreads();
  return value;
}
