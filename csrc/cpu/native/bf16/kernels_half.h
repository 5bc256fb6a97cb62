// The kernels of products in bf16 for what the file that includes this is compiled for.
#pragma once
#include "attend_bf16_kernel.h"
#include "conv_bf16_kernel.h"
#include "kernels.h"
#include "product.h"

namespace de {
namespace {

// With tiles of its own, for tests.
inline void product_alone(const uint16_t* a, int64_t row, const Pieces& pieces, const uint16_t* panel, int64_t rows,
                          float* to, int64_t to_row, bool add) {
  const Tiles tiles;
  product(a, row, pieces, panel, rows, to, to_row, add);
}

constexpr HalfKernels half_kernels_of(const char* name) { return {name, product_alone, attend_bf16, conv_bf16}; }

}  // namespace
}  // namespace de
