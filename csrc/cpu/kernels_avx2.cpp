#include "attention_kernel.h"
#include "brownian_kernel.h"
#include "group_norm_kernel.h"
#include "kernels.h"
#include "step_kernel.h"
#include "winograd_kernel.h"

namespace de {

static void normals(uint64_t seed, uint32_t key, uint32_t m, int64_t first, int64_t count, float* out) {
  fill_normals(Normals(seed, key, m), first, count, out, 1);
}

const Kernels avx2 = {"avx2", step, noise, brownian, normals, group_norm,
                      column_moments, normalize_rows, attention, conv3x3};

}  // namespace de
