// The op group_norm between its kernels and the loops over threads.
#pragma once
#include <vector>

#include "layers.h"

namespace de {

// Whether a row of the kernels is a pixel's channels (channels last) or else a channel's pixels.
bool rows_are_pixels(const GroupNormParams& p);

// Pixels whose moments are taken together where rows are pixels: some 16 KiB.
int64_t rows_of_tile(const GroupNormParams& p);

// Number, mean and sum of squared deviations of some values.
struct Moments {
  double n = 0, mean = 0, m2 = 0;

  // Chan, Golub and LeVeque 1979, equation 2.1.
  void merge(double count, double other_mean, double other_m2) {
    const double total = n + count, delta = other_mean - mean;
    m2 += other_m2 + delta * delta * n * count / total;
    mean += delta * count / total;
    n = total;
  }
};

// What becomes of x in the channels [first, first + count) of a sample: (x - center) factor + offset.
// A residual of one value per channel is part of the center.
struct Affine {
  int64_t first = 0;
  std::vector<float> center, factor, offset, residual;

  void reset(const GroupNormParams& p, int64_t b, int64_t first, int64_t count);
  // The moments are those of x + residual in the group.
  void fill(const GroupNormParams& p, int64_t b, int64_t group, const Moments& moments);
  // The same from the moments of each channel of x alone, mean[c - first] and m2[c - first].
  void fill(const GroupNormParams& p, int64_t b, const float* mean, const float* m2);
};

void run_group_norm(const GroupNormParams& p);

}  // namespace de
