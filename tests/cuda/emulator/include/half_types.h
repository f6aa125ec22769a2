// What f16 and bf16 have in common: a type of 16 bits that computes in f32 and rounds once, and pairs of it.
#ifndef GRAPHC_HALF_TYPES_H
#define GRAPHC_HALF_TYPES_H

#include <cstdint>
#include <cstring>
#include <math.h>

// IEEE 754 binary16, to nearest even.
inline uint16_t float_to_half_bits(float value) {
    uint32_t x;
    memcpy(&x, &value, 4);
    const uint16_t sign = static_cast<uint16_t>(x >> 16 & 0x8000);
    x &= 0x7fffffffu;
    if (x > 0x7f800000u) return sign | 0x7fff;
    if (x >= 0x47800000u) return sign | 0x7c00; // 2^16 and more, infinity
    if (x < 0x38800000u) {                      // below 2^-14: a multiple of 2^-24
        float magnitude;
        memcpy(&magnitude, &x, 4);
        magnitude += 0.5f; // the last bit of 0.5 is 2^-24
        uint32_t rounded;
        memcpy(&rounded, &magnitude, 4);
        return static_cast<uint16_t>(sign | (rounded - 0x3f000000u));
    }
    x += 0xfffu + (x >> 13 & 1);
    return static_cast<uint16_t>(sign | ((x - 0x38000000u) >> 13));
}

inline float half_bits_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, magnitude = half & 0x7fffu;
    uint32_t x;
    if (magnitude >= 0x7c00) x = magnitude << 13 | 0x7f800000u;
    else if (magnitude >= 0x400) x = (magnitude << 13) + 0x38000000u;
    else {
        const float small = static_cast<float>(magnitude) * 0x1p-24f;
        memcpy(&x, &small, 4);
    }
    x |= sign;
    float value;
    memcpy(&value, &x, 4);
    return value;
}

// The upper half of a float, to nearest even.
inline uint16_t float_to_bfloat_bits(float value) {
    uint32_t x;
    memcpy(&x, &value, 4);
    if ((x & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return static_cast<uint16_t>((x + 0x7fffu + (x >> 16 & 1)) >> 16);
}

inline float bfloat_bits_to_float(uint16_t bits) {
    const uint32_t x = static_cast<uint32_t>(bits) << 16;
    float value;
    memcpy(&value, &x, 4);
    return value;
}

#define SIXTEEN_BITS(T, T2, encode, decode)                                                                            \
    struct T {                                                                                                         \
        uint16_t bits;                                                                                                 \
        T() = default;                                                                                                 \
        T(float x) : bits(encode(x)) {}                                                                                \
        T(double x) : bits(encode(static_cast<float>(x))) {}                                                           \
        T(int x) : bits(encode(static_cast<float>(x))) {}                                                              \
        T(unsigned x) : bits(encode(static_cast<float>(x))) {}                                                         \
        T(long x) : bits(encode(static_cast<float>(x))) {}                                                             \
        T(unsigned long x) : bits(encode(static_cast<float>(x))) {}                                                    \
        T(long long x) : bits(encode(static_cast<float>(x))) {}                                                        \
        T(unsigned long long x) : bits(encode(static_cast<float>(x))) {}                                               \
        T(short x) : bits(encode(static_cast<float>(x))) {}                                                            \
        T(unsigned short x) : bits(encode(static_cast<float>(x))) {}                                                   \
        operator float() const { return decode(bits); }                                                                \
        T &operator+=(const T &y) { return *this = T(decode(bits) + decode(y.bits)); }                                 \
        T &operator-=(const T &y) { return *this = T(decode(bits) - decode(y.bits)); }                                 \
        T &operator*=(const T &y) { return *this = T(decode(bits) * decode(y.bits)); }                                 \
        T &operator/=(const T &y) { return *this = T(decode(bits) / decode(y.bits)); }                                 \
    };                                                                                                                 \
    struct alignas(4) T2 {                                                                                             \
        T x, y;                                                                                                        \
        T2() = default;                                                                                                \
        T2(T a, T b) : x(a), y(b) {}                                                                                   \
    };                                                                                                                 \
    inline T operator+(const T &a, const T &b) { return T(decode(a.bits) + decode(b.bits)); }                          \
    inline T operator-(const T &a, const T &b) { return T(decode(a.bits) - decode(b.bits)); }                          \
    inline T operator*(const T &a, const T &b) { return T(decode(a.bits) * decode(b.bits)); }                          \
    inline T operator/(const T &a, const T &b) { return T(decode(a.bits) / decode(b.bits)); }                          \
    inline T operator-(const T &a) { return T(-decode(a.bits)); }                                                      \
    inline bool operator==(const T &a, const T &b) { return decode(a.bits) == decode(b.bits); }                        \
    inline bool operator!=(const T &a, const T &b) { return decode(a.bits) != decode(b.bits); }                        \
    inline bool operator<(const T &a, const T &b) { return decode(a.bits) < decode(b.bits); }                          \
    inline bool operator<=(const T &a, const T &b) { return decode(a.bits) <= decode(b.bits); }                        \
    inline bool operator>(const T &a, const T &b) { return decode(a.bits) > decode(b.bits); }                          \
    inline bool operator>=(const T &a, const T &b) { return decode(a.bits) >= decode(b.bits); }                        \
    inline T2 operator+(const T2 &a, const T2 &b) { return {a.x + b.x, a.y + b.y}; }                                   \
    inline T2 operator-(const T2 &a, const T2 &b) { return {a.x - b.x, a.y - b.y}; }                                   \
    inline T2 operator*(const T2 &a, const T2 &b) { return {a.x * b.x, a.y * b.y}; }                                   \
    inline T2 operator/(const T2 &a, const T2 &b) { return {a.x / b.x, a.y / b.y}; }                                   \
    inline T __hadd(T a, T b) { return a + b; }                                                                        \
    inline T __hsub(T a, T b) { return a - b; }                                                                        \
    inline T __hmul(T a, T b) { return a * b; }                                                                        \
    inline T __hdiv(T a, T b) { return a / b; }                                                                        \
    inline T __hneg(T a) { return -a; }                                                                                \
    inline T __habs(T a) { return T(fabsf(a)); }                                                                       \
    inline T __hfma(T a, T b, T c) { return T(fmaf(a, b, c)); }                                                        \
    inline T __hmax(T a, T b) { return T(fmaxf(a, b)); }                                                               \
    inline T __hmin(T a, T b) { return T(fminf(a, b)); }                                                               \
    inline T __hmax_nan(T a, T b) { return a != a ? a : b != b ? b : __hmax(a, b); }                                   \
    inline T __hmin_nan(T a, T b) { return a != a ? a : b != b ? b : __hmin(a, b); }                                   \
    inline bool __heq(T a, T b) { return a == b; }                                                                     \
    inline bool __hne(T a, T b) { return a != b; }                                                                     \
    inline bool __hlt(T a, T b) { return a < b; }                                                                      \
    inline bool __hle(T a, T b) { return a <= b; }                                                                     \
    inline bool __hgt(T a, T b) { return a > b; }                                                                      \
    inline bool __hge(T a, T b) { return a >= b; }                                                                     \
    inline bool __hisnan(T a) { return a != a; }                                                                       \
    inline T2 __hadd2(T2 a, T2 b) { return a + b; }                                                                    \
    inline T2 __hsub2(T2 a, T2 b) { return a - b; }                                                                    \
    inline T2 __hmul2(T2 a, T2 b) { return a * b; }                                                                    \
    inline T2 __hfma2(T2 a, T2 b, T2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }                     \
    inline T2 __hmax2(T2 a, T2 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                                     \
    inline T2 __hmin2(T2 a, T2 b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }                                     \
    inline float __low2float(T2 a) { return a.x; }                                                                     \
    inline float __high2float(T2 a) { return a.y; }                                                                    \
    inline T hexp(T a) { return T(expf(a)); }                                                                          \
    inline T hexp2(T a) { return T(exp2f(a)); }                                                                        \
    inline T hexp10(T a) { return T(powf(10.0f, a)); }                                                                 \
    inline T hlog(T a) { return T(logf(a)); }                                                                          \
    inline T hlog2(T a) { return T(log2f(a)); }                                                                        \
    inline T hlog10(T a) { return T(log10f(a)); }                                                                      \
    inline T hsqrt(T a) { return T(sqrtf(a)); }                                                                        \
    inline T hrsqrt(T a) { return T(1.0f / sqrtf(a)); }                                                                \
    inline T hrcp(T a) { return T(1.0f / static_cast<float>(a)); }                                                     \
    inline T hsin(T a) { return T(sinf(a)); }                                                                          \
    inline T hcos(T a) { return T(cosf(a)); }                                                                          \
    inline T htanh(T a) { return T(tanhf(a)); }                                                                        \
    inline T hfloor(T a) { return T(floorf(a)); }                                                                      \
    inline T hceil(T a) { return T(ceilf(a)); }                                                                        \
    inline T htrunc(T a) { return T(truncf(a)); }                                                                      \
    inline T hrint(T a) { return T(nearbyintf(a)); }

#endif
