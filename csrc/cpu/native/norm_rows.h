// Layer norm, RMS norm and softmax over the last axis, and sums over an axis: what walks over rows alone.
#pragma once
#include "params.h"
#include "task.h"

namespace de {

// out = norm(x) (base + scale) + shift, where norm(x) = (x - mean) / sqrt(variance + eps) weight + bias, or
// with `rms` x / sqrt(mean of x^2 + eps) weight + bias. What a null pointer means: weight and scale one
// (a scale of 0), bias and shift zero. `scale` and `shift` have a value for each channel, with strides of
// samples and of rows: 0 where those share it. `out` may be `x`.
struct NormRowsParams {
  int64_t batch = 0, rows = 0, channels = 0;
  float eps = 1e-5f;
  bool rms = false;
  const float *weight = nullptr, *bias = nullptr;
  const float *scale = nullptr, *shift = nullptr;
  int64_t scale_batch = 0, scale_row = 0, shift_batch = 0, shift_row = 0;
  float base = 1.0f;
  Rows x, out;
};

// out = softmax(scale x) over the last axis; scale is not negative. `out` may be `x`.
struct SoftmaxRowsParams {
  int64_t batch = 0, rows = 0, channels = 0;
  float scale = 1.0f;
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
