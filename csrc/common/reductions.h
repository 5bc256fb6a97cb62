// The ops `norms` and `quantile` for native code (diffusion_engine/ops/ defines them): numbers of each
// sample. Plain C++ and raw pointers: the CPU and CUDA kernels both take these by value.
#pragma once
#include "philox.h"
#include "step.h"

namespace de {

// A segment of a sum is BLOCKS blocks of ROWS_OF_SUM rows of LANES_OF_SUM elements.
constexpr int LANES_OF_SUM = 16, ROWS_OF_SUM = 32, BLOCKS_OF_SUM = 16;
constexpr int64_t BLOCK_OF_SUM = ROWS_OF_SUM * LANES_OF_SUM, SEGMENT_OF_SUM = BLOCKS_OF_SUM * BLOCK_OF_SUM;
constexpr int SUMS = 5;  // x, y, x^2, y^2, x y

struct NormsParams {
  int64_t batch, channels, pixels;  // as in StepParams
  View x, y;                        // float32; y may be absent
  double* out;                      // [batch, SUMS]
  // Of the GPU's kernels, norms_workspace(params) bytes; null where that is 0.
  void* workspace;

  DE_HD int64_t size() const { return channels * pixels; }
  DE_HD int64_t segments() const { return (size() + SEGMENT_OF_SUM - 1) / SEGMENT_OF_SUM; }
};

struct QuantileParams {
  int64_t batch, channels, pixels;  // in any order: a dense sample may pass channels = 1
  View x;                           // float32
  const double* q;                  // [batch]
  float* out;                       // [batch]

  DE_HD int64_t size() const { return channels * pixels; }
};

}  // namespace de
