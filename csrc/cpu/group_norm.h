// The op group_norm between its kernels and the loops over threads.
#pragma once
#include <vector>

#include "layers.h"

namespace de {

// Whether a row of the kernels is a pixel's channels (channels last) or else a channel's pixels.
bool rows_are_pixels(const GroupNormParams& p);

// Pixels whose moments are taken together where rows are pixels: some 16 KiB, and few enough that
// their sums lose no digits.
int64_t rows_of_tile(const GroupNormParams& p);

// Whether a residual has one value per channel, which goes into each channel's coefficients. Of a
// single pixel both kinds are the same and it is added like any other: a group of one value has the
// mean of that sum to the last bit.
inline bool residual_per_channel(const GroupNormParams& p) {
  return p.residual.data && p.residual.pixel == 0 && p.pixels > 1;
}

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

// What becomes of x in the channels [first, first + count) of a sample:
// (x + residual - center) factor + offset, where the residual is one of one value per channel.
struct Affine {
  int64_t first = 0;
  std::vector<float> center, factor, offset, residual;

  void reset(const GroupNormParams& p, int64_t b, int64_t first, int64_t count);
  // The moments are those of x + residual in the group.
  void fill(const GroupNormParams& p, int64_t b, int64_t group, const Moments& moments);
  // The same from the moments of each channel of x alone: [3][count] of the means' distances from a
  // pivot, sums of squared deviations, and pivots.
  void fill(const GroupNormParams& p, int64_t b, const float* columns);
};

void run_group_norm(const GroupNormParams& p);

}  // namespace de
