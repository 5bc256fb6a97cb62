// Group norm of rows of channels.
#pragma once
#include <vector>

#include "params.h"
#include "task.h"

namespace de {

//   out = activation(norm(x) (unit + scale) + shift), norm(x) = (x - mean) / sqrt(variance + eps) weight + bias
// `scale` and `shift` are [batch][channels], with 0 as the stride where all samples share them; `unit` is 1 for
// the scales of adaptive norms and 0 for factors. Null pointers: weight and unit + scale are 1, the others 0.
// `out` may be `x`.
struct NormGroupsParams {
  int64_t batch = 0, rows = 0, channels = 0, groups = 1;
  float eps = 1e-5f;
  const float *weight = nullptr, *bias = nullptr;
  float unit = 1.0f;
  const float *scale = nullptr, *shift = nullptr;
  int64_t scale_batch = 0, shift_batch = 0;
  int32_t activation = NO_ACTIVATION;
  Rows x, out;
};

// The blocks of rows whose moments are taken on their own and then merged in order. They follow from the
// rows of one sample alone.
struct NormBlocks {
  static constexpr int64_t TILE = 64;  // rows whose sums are made in one chain: they lose no digits
  static constexpr int64_t MOST = 32;  // blocks, which every item of the second task merges
  static constexpr int64_t GROUP_FLOATS = 4;  // of scratch for each group of a slice: two numbers in double
  int64_t rows, count;

  explicit NormBlocks(int64_t all)
      : rows((all + TILE * MOST - 1) / (TILE * MOST) * TILE), count((all + rows - 1) / rows) {}
};

// Moments of `width` channels: [3][width] of pivots, distances of the means from them and sums of squared
// deviations.
struct NormMoments {
  float *pivot, *mean, *m2;
  NormMoments(float* at, int64_t width) : pivot(at), mean(at + width), m2(at + 2 * width) {}
};

// Channels [first, first + width) of sample b. A slice has whole groups.
struct NormSlice {
  int64_t b, first, width;
};

// One task where slices of channels or whole samples are enough for the threads, or else two: moments,
// then the result. The sums are the same.
std::vector<Task> norm_groups_tasks(const NormGroupsParams& p, int64_t threads);

}  // namespace de
