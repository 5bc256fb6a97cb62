// Means and squared deviations of rows that lie in the cache, in float32: the mean of a part first,
// as a distance from its first value, then the deviations from it, so that a large mean costs no
// digits. Parts merge in order.
#pragma once
#include "group_norm.h"
#include "vector.h"

namespace de {
namespace {

DE_INLINE float sum(Float v) {
  float total = 0.0f;
  for (int i = 0; i < W; ++i) total += v[i];
  return total;
}

// Sum of f over n values, in four chains.
template <class F>
DE_INLINE float sum_row(const float* row, int64_t n, F f) {
  constexpr int CHAINS = 4;
  Float sums[CHAINS] = {};
  int64_t i = 0;
  for (; i + CHAINS * W <= n; i += CHAINS * W)
    for (int u = 0; u < CHAINS; ++u) sums[u] = f(load<Float>(row + i + u * W), sums[u]);
  for (; i + W <= n; i += W) sums[0] = f(load<Float>(row + i), sums[0]);
  float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < n; ++i) total += f(splat(row[i]), Float{})[0];
  return total;
}

// The moments of n values.
inline void add_moments(Moments& moments, const float* row, int64_t n, float residual) {
  const float pivot = row[0];
  const auto shifted = [pivot](Float x, Float total) { return total + (x - pivot); };
  const float mean = pivot + sum_row(row, n, shifted) / (float)n;
  const float m2 = sum_row(row, n, [mean](Float x, Float total) {
    const Float d = x - mean;
    return multiply_add(d, d, total);
  });
  moments.merge((double)n, (double)mean + residual, m2);
}

// U vectors of columns of `rows` rows that start `step` floats apart: merges their moments into mean[]
// and m2[], which hold those of `before` rows. Means are distances from pivot[], a value of the
// column, so that their rounding is one of the deviations' size.
template <int U>
DE_INLINE void add_columns(const float* x, int64_t rows, int64_t step, int64_t before, float* mean, float* m2,
                           const float* pivot) {
  Float from[U], part[U] = {}, squares[U] = {};
  for (int u = 0; u < U; ++u) from[u] = load<Float>(pivot + u * W);
  for (int64_t r = 0; r < rows; ++r)
    for (int u = 0; u < U; ++u) part[u] += load<Float>(x + r * step + u * W) - from[u];
  for (int u = 0; u < U; ++u) part[u] *= 1.0f / (float)rows;
  for (int64_t r = 0; r < rows; ++r)
    for (int u = 0; u < U; ++u) {
      const Float d = (load<Float>(x + r * step + u * W) - from[u]) - part[u];
      squares[u] = multiply_add(d, d, squares[u]);
    }
  const float share = (float)rows / (float)(before + rows), cross = (float)before * share;
  for (int u = 0; u < U; ++u) {
    const Float old = load<Float>(mean + u * W), delta = part[u] - old;
    store(mean + u * W, old + delta * share);
    store(m2 + u * W, load<Float>(m2 + u * W) + (squares[u] + delta * delta * cross));
  }
}

// The same for one column, by the same operations: which columns of an item are left over from whole
// vectors depends on how the channels were split for the threads, and the bits may not.
inline void add_column(const float* x, int64_t rows, int64_t step, int64_t before, float* mean, float* m2,
                       float pivot) {
  float part = 0.0f;
  Float squares = {};
  for (int64_t r = 0; r < rows; ++r) part += x[r * step] - pivot;
  part *= 1.0f / (float)rows;
  for (int64_t r = 0; r < rows; ++r) {
    const Float d = splat((x[r * step] - pivot) - part);
    squares = multiply_add(d, d, squares);
  }
  const float share = (float)rows / (float)(before + rows), cross = (float)before * share;
  const float delta = part - *mean;
  *mean += delta * share;
  *m2 += squares[0] + delta * delta * cross;
}

// The moments [3][n] of n columns: means, squared deviations, pivots.
inline void add_columns(const float* x, int64_t n, int64_t rows, int64_t step, int64_t before,
                        float* columns) {
  float *mean = columns, *m2 = mean + n, *pivot = m2 + n;
  int64_t c = 0;
  for (; c + 4 * W <= n; c += 4 * W)
    add_columns<4>(x + c, rows, step, before, mean + c, m2 + c, pivot + c);
  for (; c + W <= n; c += W) add_columns<1>(x + c, rows, step, before, mean + c, m2 + c, pivot + c);
  for (; c < n; ++c) add_column(x + c, rows, step, before, mean + c, m2 + c, pivot[c]);
}

}  // namespace
}  // namespace de
