// What the threads of a warp and of a block do together. On the host they are fibers, so that the
// tests run the kernels' own code on a CPU.
#pragma once
#include "access.cuh"
#include "fibers.h"

namespace de {

constexpr int WARP = 32;

DE_HD void barrier() {
#ifdef __CUDA_ARCH__
  __syncthreads();
#else
  fibers::barrier();
#endif
}

DE_HD float shuffle_xor(float x, int mask) {
#ifdef __CUDA_ARCH__
  return __shfl_xor_sync(0xFFFFFFFFu, x, mask);
#else
  return fibers::shuffle_xor(x, mask);
#endif
}

DE_HD float sum_of_warp(float x) {
#pragma unroll
  for (int mask = WARP / 2; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}

// 2^x to two units in the last place; 0 at -inf.
DE_HD float exp2_fast(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

DE_HD float divide_fast(float x, float by) {
#ifdef __CUDA_ARCH__
  return __fdividef(x, by);
#else
  return x / by;
#endif
}

// c += a b on the tensor cores, 16 x 8 x 16.
template <bool BF16_>
DE_HD void mma_16x8x16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
#ifdef __CUDA_ARCH__
#define DE_MMA(TYPE)                                                                             \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE                            \
               ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                      \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                  \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if constexpr (BF16_)
    DE_MMA("bf16");
  else
    DE_MMA("f16");
#undef DE_MMA
#else
  fibers::mma(c, a, b, 16, BF16_);
#endif
}

// The same of depth 8: the first two registers of a and the first of b.
template <bool BF16_>
DE_HD void mma_16x8x8(float c[4], const uint32_t a[2], const uint32_t b[1]) {
#ifdef __CUDA_ARCH__
#define DE_MMA(TYPE)                                                                             \
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32." TYPE "." TYPE                             \
               ".f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"                               \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                  \
               : "r"(a[0]), "r"(a[1]), "r"(b[0]))
  if constexpr (BF16_)
    DE_MMA("bf16");
  else
    DE_MMA("f16");
#undef DE_MMA
#else
  fibers::mma(c, a, b, 8, BF16_);
#endif
}

#ifdef __CUDA_ARCH__
__device__ inline uint32_t shared_address(const void* at) {
  return (uint32_t)__cvta_generic_to_shared(at);
}
#endif

// Four 8 x 8 matrices of 16-bit numbers; lane 8 m + r points to row r of matrix m.
template <bool TRANSPOSED>
DE_HD void load_matrix_x4(uint32_t r[4], const void* row) {
#ifdef __CUDA_ARCH__
#define DE_LOAD(TRANS)                                                                           \
  asm volatile("ldmatrix.sync.aligned.m8n8.x4" TRANS ".shared.b16 {%0,%1,%2,%3}, [%4];"          \
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                                  \
               : "r"(shared_address(row))                                                        \
               : "memory")
  if constexpr (TRANSPOSED)
    DE_LOAD(".trans");
  else
    DE_LOAD("");
#undef DE_LOAD
#else
  fibers::load_matrix_x4(r, row, TRANSPOSED);
#endif
}

// 16 bytes into shared memory, the last 16 - bytes of them zero; there after commit and wait.
DE_HD void copy_async(void* to, const void* from, int bytes) {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(bytes)
               : "memory");
#else
  fibers::copy_async(to, from, bytes);
#endif
}

DE_HD void commit() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  fibers::commit();
#endif
}

// Until at most so many of the thread's latest groups of copies are under way.
template <int PENDING>
DE_HD void wait() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#else
  fibers::wait(PENDING);
#endif
}

}  // namespace de
