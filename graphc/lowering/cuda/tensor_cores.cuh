
/* ---- Tensor cores and asynchronous copies (PTX ISA, "Warp-level matrix instructions", "cp.async"). ---- */

#ifndef GRAPHC_EMULATED
GRAPHC_INLINE unsigned int graphc_shared_address(const void *p) { return (unsigned int)__cvta_generic_to_shared(p); }
/* Four 8 x 8 matrices of 16-bit elements: lane 8 i + r names row r of matrix i. */
GRAPHC_INLINE void graphc_ldmatrix_x4(unsigned int *to, const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(graphc_shared_address(row))
               : "memory");
}
GRAPHC_INLINE void graphc_ldmatrix_x4_trans(unsigned int *to, const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(graphc_shared_address(row))
               : "memory");
}
#define GRAPHC_MMA(name, shape)                                                                                        \
  GRAPHC_INLINE void name(float *d, const unsigned int *a, const unsigned int *b) {                                    \
    asm volatile("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"          \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                  \
  }
GRAPHC_MMA(graphc_mma_bf16_m16n8k16, "m16n8k16.row.col.f32.bf16.bf16.f32")
GRAPHC_MMA(graphc_mma_f16_m16n8k16, "m16n8k16.row.col.f32.f16.f16.f32")
GRAPHC_MMA(graphc_mma_tf32_m16n8k8, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef GRAPHC_MMA
GRAPHC_INLINE unsigned int graphc_to_tf32(float x) {
  unsigned int bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}
/* Copies 16 bytes to shared memory, of which `bytes` are read and the rest is zeros. */
GRAPHC_INLINE void graphc_cp_async_16(void *to, const void *from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(graphc_shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
GRAPHC_INLINE void graphc_cp_async_4(void *to, const void *from, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
               :
               : "r"(graphc_shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
GRAPHC_INLINE void graphc_cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
GRAPHC_INLINE void graphc_cp_async_wait_0() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }
GRAPHC_INLINE void graphc_cp_async_wait_1() { asm volatile("cp.async.wait_group 1;" ::: "memory"); }
GRAPHC_INLINE void graphc_cp_async_wait_2() { asm volatile("cp.async.wait_group 2;" ::: "memory"); }
#endif

template <int GROUPS> GRAPHC_INLINE void graphc_cp_async_wait() {
  if (GROUPS == 0) graphc_cp_async_wait_0();
  if (GROUPS == 1) graphc_cp_async_wait_1();
  if (GROUPS == 2) graphc_cp_async_wait_2();
}

/* ---- Tiles in shared memory: rows of 128 bytes along K, whose 16-byte chunks are permuted so that neither copies nor
 * ldmatrix meet bank conflicts. ---- */

GRAPHC_INLINE int graphc_swizzled(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }
