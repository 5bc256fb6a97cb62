// The kernels for the instruction set that the file which includes this is compiled for.
#pragma once
#include "attention_kernel.h"
#include "brownian_kernel.h"
#include "checksum_kernel.h"
#include "group_norm_kernel.h"
#include "kernels.h"
#include "native/conv_kernel.h"
#include "native/norm_groups_kernel.h"
#include "native/norm_rows_kernel.h"
#include "native/matmul_kernel.h"
#include "native/map_kernel.h"
#include "norms_kernel.h"
#include "quantile_kernel.h"
#include "step_kernel.h"
#include "winograd_kernel.h"

namespace de {
namespace {

void normals(uint64_t seed, uint32_t key, uint32_t m, int64_t first, int64_t count, float* out) {
  fill_normals(Normals(seed, key, m), first, count, out, 1);
}

constexpr Kernels kernels_of(const char* isa) {
  return {isa,
          step,
          noise,
          brownian,
          normals,
          group_norm,
          column_moments,
          normalize_rows,
          attention,
          conv3x3,
          conv,
          depthwise,
          masked_attention,
          norm_slice,
          norm_moments,
          norm_from_moments,
          norm_rows,
          softmax_rows,
          sum_channels,
          sum_rows,
          matmul,
          map,
          checksum,
          norms,
          between};
}

}  // namespace
}  // namespace de
