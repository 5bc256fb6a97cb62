// Norms and softmax of rows, and sums. The order of a row's sum follows from its length alone. Included
// once for every instruction set.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "activation.h"
#include "lanes.h"
#include "norm_rows.h"

namespace de {
namespace {

// Values summed in one chain of each lane, before they are added to others: their sums lose no digits.
constexpr int64_t CHAIN = 64;

// The sum of f(x, lanes that count) over a row of n, in four chains of lanes.
template <class F>
DE_INLINE float sum_of(const float* x, int64_t n, F f) {
  constexpr int CHAINS = 4;
  float total = 0.0f;
  for (int64_t part = 0; part < n; part += CHAINS * CHAIN * W) {
    const int64_t end = std::min(n, part + CHAINS * CHAIN * W);
    Float sums[CHAINS] = {};
    int64_t i = part;
    for (; i + CHAINS * W <= end; i += CHAINS * W)
      for (int u = 0; u < CHAINS; ++u) sums[u] = f(load<Float>(x + i + u * W), sums[u]);
    for (; i + W <= end; i += W) sums[0] = f(load<Float>(x + i), sums[0]);
    if (i < end) {
      const Lanes<false> rest = {end - i};
      float kept[W];
      store(kept, f(rest.load(x + i), Float{}));
      sums[1] += rest.load(kept);
    }
    total += sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
  return total;
}

// A row becomes (x - center) factor gain + offset.
struct RowMoments {
  float center, factor;
};

// The mean is a distance from the first value, so that a large one costs no digits.
inline RowMoments moments_of_row(const float* x, int64_t n, float eps) {
  const float pivot = x[0], one = 1.0f / (float)n;
  const float mean =
      pivot + one * sum_of(x, n, [pivot](Float v, Float total) { return total + (v - pivot); });
  const float m2 = sum_of(x, n, [mean](Float v, Float total) {
    const Float d = v - mean;
    return multiply_add(d, d, total);
  });
  return {mean, 1.0f / std::sqrt(m2 * one + eps)};
}

inline RowMoments size_of_row(const float* x, int64_t n, float eps) {
  const float m2 = sum_of(x, n, [](Float v, Float total) { return multiply_add(v, v, total); });
  return {0.0f, 1.0f / std::sqrt(m2 / (float)n + eps)};
}

// weight (unit + scale) and bias (unit + scale) + shift of a sample.
inline void fill_gains(const NormRowsParams& p, int64_t b, float* gain, float* offset) {
  const float* scale = p.scale + b * p.scale_batch;
  const float* shift = p.shift + b * p.shift_batch;
  each_vector(p.channels, [&](int64_t c, auto lanes) {
    const Float more = p.scale ? p.unit + lanes.load(scale + c) : splat(1.0f);
    const Float add = p.shift ? lanes.load(shift + c) : Float{};
    lanes.store(gain + c, p.weight ? lanes.load(p.weight + c) * more : more);
    lanes.store(offset + c, p.bias ? multiply_add(lanes.load(p.bias + c), more, add) : add);
  });
}

template <int32_t activation>
void norm_rows(const NormRowsParams& p, RowRange range, float* scratch) {
  float *gain = scratch, *offset = scratch + p.channels;
  int64_t filled = -1;
  for (int64_t i = range.first; i < range.last; ++i) {
    const int64_t b = i / p.rows, row = i % p.rows;
    if (b != filled) fill_gains(p, b, gain, offset), filled = b;
    const float* x = p.x.data + b * p.x.batch + row * p.x.row;
    float* out = p.out.data + b * p.out.batch + row * p.out.row;
    const RowMoments m = (p.rms ? size_of_row : moments_of_row)(x, p.channels, p.eps);
    each_vector(p.channels, [&](int64_t c, auto lanes) {
      const Float y = (lanes.load(x + c) - m.center) * m.factor;
      lanes.store(out + c, activate(multiply_add(y, lanes.load(gain + c), lanes.load(offset + c)), activation));
    });
  }
}

inline void norm_rows(const NormRowsParams& p, RowRange range, float* scratch) {
  with_activation(p.activation, [&](auto kind) { norm_rows<kind>(p, range, scratch); });
}

inline float largest(const float* x, int64_t n) {
  Float top[2] = {splat(x[0]), splat(x[0])};
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W)
    for (int u = 0; u < 2; ++u) top[u] = at_least(load<Float>(x + i + u * W), top[u]);
  if (i + W <= n) top[0] = at_least(load<Float>(x + i), top[0]), i += W;
  float most = max_lanes(at_least(top[0], top[1]));
  for (; i < n; ++i) most = x[i] > most ? x[i] : most;
  return most;
}

// -infinity weighs nothing, and a row of nothing else becomes NaN, as it does in the definition.
inline void softmax_rows(const SoftmaxRowsParams& p, RowRange range) {
  for (int64_t i = range.first; i < range.last; ++i) {
    const float* x = p.x.data + i / p.rows * p.x.batch + i % p.rows * p.x.row;
    float* out = p.out.data + i / p.rows * p.out.batch + i % p.rows * p.out.row;
    const float top = largest(x, p.channels);
    each_vector(p.channels, [&](int64_t c, auto lanes) {
      lanes.store(out + c, exp_fused(lanes.load(x + c) - top));
    });
    const float one = 1.0f / sum_of(out, p.channels, [](Float v, Float total) { return total + v; });
    each_vector(p.channels, [&](int64_t c, auto lanes) { lanes.store(out + c, lanes.load(out + c) * one); });
  }
}

inline void sum_channels(const ReduceRowsParams& p, RowRange range) {
  for (int64_t i = range.first; i < range.last; ++i) {
    const float* x = p.x.data + i / p.rows * p.x.batch + i % p.rows * p.x.row;
    const float total = sum_of(x, p.channels, [](Float v, Float sum) { return sum + v; });
    p.out.data[i / p.rows * p.out.batch + i % p.rows * p.out.row] = total * p.factor;
  }
}

// U vectors of columns from x on.
template <int U, bool WHOLE>
DE_INLINE void sum_columns(const ReduceRowsParams& p, const float* x, float* out, Lanes<WHOLE> lanes) {
  Float total[U] = {};
  for (int64_t part = 0; part < p.rows; part += CHAIN) {
    Float sum[U] = {};
    const int64_t end = std::min(part + CHAIN, p.rows);
    for (int64_t row = part; row < end; ++row)
      for (int u = 0; u < U; ++u) sum[u] += lanes.load(x + row * p.x.row + u * W);
    for (int u = 0; u < U; ++u) total[u] += sum[u];
  }
  for (int u = 0; u < U; ++u) lanes.store(out + u * W, total[u] * p.factor);
}

// Channels [first, first + count) of sample b, summed over the rows.
inline void sum_rows(const ReduceRowsParams& p, int64_t b, int64_t first, int64_t count) {
  const float* x = p.x.data + b * p.x.batch + first;
  float* out = p.out.data + b * p.out.batch + first;
  int64_t i = 0;
  for (; i + 4 * W <= count; i += 4 * W) sum_columns<4>(p, x + i, out + i, Lanes<true>{});
  each_vector(count - i, [&](int64_t c, auto lanes) { sum_columns<1>(p, x + i + c, out + i + c, lanes); });
}

}  // namespace
}  // namespace de
