// Layer norm, RMS norm and softmax over the last axis, and sums over an axis: what walks over rows alone.
#pragma once
#include "params.h"
#include "task.h"

namespace de {

//   out = activation(norm(x) (unit + scale) + shift), norm(x) = (x - mean) / sqrt(variance + eps) weight + bias
// or, with `rms`, norm(x) = x / sqrt(mean of x^2 + eps) weight + bias. `scale` and `shift` are [batch][channels],
// with 0 as the stride where all samples share them; `unit` is 1 for the scales of adaptive norms and 0
// for factors. Null pointers: weight and unit + scale are 1, the others 0. `out` may be `x`.
struct NormRowsParams {
  int64_t batch = 0, rows = 0, channels = 0;
  float eps = 1e-5f;
  bool rms = false;
  const float *weight = nullptr, *bias = nullptr;
  float unit = 1.0f;
  const float *scale = nullptr, *shift = nullptr;
  int64_t scale_batch = 0, shift_batch = 0;
  int32_t activation = NO_ACTIVATION;
  Rows x, out;
};

// out = softmax(x) over the last axis. `out` may be `x`.
struct SoftmaxRowsParams {
  int64_t batch = 0, rows = 0, channels = 0;
  Rows x, out;
};

// factor times the sum over the channels of each row, out[b][row], or over the rows, out[b][channel].
// For a mean the factor is one over their number.
struct ReduceRowsParams {
  int64_t batch = 0, rows = 0, channels = 0;
  bool over_rows = false;
  float factor = 1.0f;
  Rows x, out;
};

// Rows [first, last) of all samples' one after the other.
struct RowRange {
  int64_t first, last;
};

Task norm_rows_task(const NormRowsParams& p, int64_t threads);
Task softmax_rows_task(const SoftmaxRowsParams& p, int64_t threads);
Task reduce_rows_task(const ReduceRowsParams& p, int64_t threads);

}  // namespace de
