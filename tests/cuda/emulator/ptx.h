// The device functions that are inline PTX on a GPU, with bodies for the CPU. Fragment layouts are those of the PTX ISA
// ("Warp-level matrix instructions"): lane = 4 * group + member.
#ifndef GRAPHC_PTX_H
#define GRAPHC_PTX_H

#include "include/cuda_bf16.h"
#include "include/cuda_fp16.h"

namespace machine {

// ---- ldmatrix: lane 8 i + r names row r of matrix i, 16 bytes; every lane gets two elements of each matrix

struct Rows {
    const void *row;
    uint32_t *to;
};

template <int Matrices, bool Transposed>
void ldmatrix(uint32_t *to, const void *row) {
    Rows mine{row, to};
    collective(
        0xffffffffu, &mine,
        [](void **posted, unsigned) {
            uint16_t m[4][8][8];
            for (int i = 0; i < Matrices * 8; i++) {
                const void *from = static_cast<Rows *>(posted[i])->row;
                if (reinterpret_cast<uintptr_t>(from) % 16) fail("ldmatrix: row %d is not 16-byte aligned", i);
                memcpy(m[i / 8][i % 8], from, 16);
            }
            for (int l = 0; l < 32; l++)
                for (int i = 0; i < Matrices; i++) {
                    const int a = l / 4, b = l % 4 * 2;
                    const uint32_t low = Transposed ? m[i][b][a] : m[i][a][b];
                    const uint32_t high = Transposed ? m[i][b + 1][a] : m[i][a][b + 1];
                    static_cast<Rows *>(posted[l])->to[i] = low | high << 16;
                }
        },
        "ldmatrix");
}

// ---- mma.sync: d += a b, accumulated in f32

struct Fragments {
    float *d;
    const uint32_t *a, *b;
};

inline float of_bf16(uint32_t bits) { return machine_bits<float>(bits << 16); }
inline float of_f16(uint32_t bits) { return half_bits_to_float(static_cast<uint16_t>(bits)); }
inline float of_tf32(uint32_t bits) { return machine_bits<float>(bits & 0xffffe000u); }

template <int K>
void multiply(void **posted, const float (&a)[16][K], const float (&b)[K][8]) {
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
            float sum = static_cast<Fragments *>(posted[l])->d[i];
            for (int k = 0; k < K; k++) sum += a[row][k] * b[k][column];
            static_cast<Fragments *>(posted[l])->d[i] = sum;
        }
}

template <float (*Of)(uint32_t)>
void mma_16bit(float *d, const uint32_t *a, const uint32_t *b, const char *what) {
    Fragments mine{d, a, b};
    collective(
        0xffffffffu, &mine,
        [](void **posted, unsigned) {
            float x[16][16], y[16][8];
            for (int l = 0; l < 32; l++) {
                const auto *f = static_cast<Fragments *>(posted[l]);
                for (int i = 0; i < 8; i++) // a2, a3 and a6, a7 are 8 rows down, a4 to a7 8 columns right
                    x[l / 4 + i / 2 % 2 * 8][l % 4 * 2 + i % 2 + i / 4 * 8] = Of(f->a[i / 2] >> i % 2 * 16 & 0xffff);
                for (int i = 0; i < 4; i++)
                    y[l % 4 * 2 + i % 2 + i / 2 * 8][l / 4] = Of(f->b[i / 2] >> i % 2 * 16 & 0xffff);
            }
            multiply<16>(posted, x, y);
        },
        what);
}

inline void mma_tf32(float *d, const uint32_t *a, const uint32_t *b) {
    Fragments mine{d, a, b};
    collective(
        0xffffffffu, &mine,
        [](void **posted, unsigned) {
            float x[16][8], y[8][8];
            for (int l = 0; l < 32; l++) {
                const auto *f = static_cast<Fragments *>(posted[l]);
                for (int i = 0; i < 4; i++) x[l / 4 + i % 2 * 8][l % 4 + i / 2 * 4] = of_tf32(f->a[i]);
                for (int i = 0; i < 2; i++) y[l % 4 + i * 4][l / 4] = of_tf32(f->b[i]);
            }
            multiply<8>(posted, x, y);
        },
        "mma m16n8k8 tf32");
}

} // namespace machine

inline void graphc_ldmatrix_x4(uint32_t *to, const void *row) { machine::ldmatrix<4, false>(to, row); }
inline void graphc_ldmatrix_x4_trans(uint32_t *to, const void *row) { machine::ldmatrix<4, true>(to, row); }
inline void graphc_ldmatrix_x2(uint32_t *to, const void *row) { machine::ldmatrix<2, false>(to, row); }
inline void graphc_ldmatrix_x2_trans(uint32_t *to, const void *row) { machine::ldmatrix<2, true>(to, row); }

inline void graphc_mma_bf16_m16n8k16(float *d, const uint32_t *a, const uint32_t *b) {
    machine::mma_16bit<machine::of_bf16>(d, a, b, "mma m16n8k16 bf16");
}
inline void graphc_mma_f16_m16n8k16(float *d, const uint32_t *a, const uint32_t *b) {
    machine::mma_16bit<machine::of_f16>(d, a, b, "mma m16n8k16 f16");
}
inline void graphc_mma_tf32_m16n8k8(float *d, const uint32_t *a, const uint32_t *b) { machine::mma_tf32(d, a, b); }

// cvt.rna.tf32.f32: to nearest, ties away from zero.
inline uint32_t graphc_to_tf32(float x) {
    const uint32_t bits = machine_bits<uint32_t>(x);
    return isfinite(x) ? (bits + 0x1000u) & 0xffffe000u : bits;
}

// cp.async: done at the wait, not before, so that a missing one shows.
namespace machine {
inline void begin_copy(void *to, const void *from, int bytes, int read) {
    if (reinterpret_cast<uintptr_t>(to) % static_cast<unsigned>(bytes))
        fail("cp.async: its target is not aligned to %d", bytes);
    if (read && reinterpret_cast<uintptr_t>(from) % static_cast<unsigned>(bytes))
        fail("cp.async: its source is not aligned to %d", bytes);
    if (read < 0 || read > bytes) fail("cp.async: %d of %d bytes", read, bytes);
    copy_async({to, from, bytes, read});
}
} // namespace machine
inline void graphc_cp_async_16(void *to, const void *from, int read) { machine::begin_copy(to, from, 16, read); }
inline void graphc_cp_async_8(void *to, const void *from, int read) { machine::begin_copy(to, from, 8, read); }
inline void graphc_cp_async_4(void *to, const void *from, int read) { machine::begin_copy(to, from, 4, read); }
inline void graphc_cp_async_commit() { machine::commit_copies(); }
inline void graphc_cp_async_wait_0() { machine::wait_copies(0); }
inline void graphc_cp_async_wait_1() { machine::wait_copies(1); }
inline void graphc_cp_async_wait_2() { machine::wait_copies(2); }
inline void graphc_cp_async_wait_3() { machine::wait_copies(3); }
inline void graphc_cp_async_wait_4() { machine::wait_copies(4); }

// ---- conversions of 16-bit words

inline float graphc_widen_f16(unsigned short bits) { return half_bits_to_float(bits); }
inline unsigned short graphc_narrow_f16(float value) { return __half_as_ushort(__half(value)); }
inline void graphc_narrow_two_f16(unsigned short *to, float first, float second) {
    to[0] = graphc_narrow_f16(first), to[1] = graphc_narrow_f16(second);
}
inline unsigned short graphc_narrow_bf16(float value) { return __bfloat16_as_ushort(__nv_bfloat16(value)); }
inline void graphc_narrow_two_bf16(unsigned short *to, float first, float second) {
    to[0] = graphc_narrow_bf16(first), to[1] = graphc_narrow_bf16(second);
}

#endif
