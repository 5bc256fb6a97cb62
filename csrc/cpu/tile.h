// Tiles of matrix products in registers. The vectors run along the queries: whatever a network's
// head dim is, no lane is wasted on it, and maxima and sums over keys are plain vector operations.
#pragma once
#include <type_traits>
#include <utility>

#include "memory.h"

namespace de {
namespace {

constexpr int VECTORS = 2;          // of a panel
constexpr int PANEL = VECTORS * W;  // queries next to each other in memory
constexpr int DEPTH = 80;           // of a product's sums, before they are added to others
constexpr int ROWS = 6;             // of a tile: 12 of AVX2's 16 registers hold sums

// Calls run(first, count) for parts of at most `most` that differ by one at most: a tile of a row or
// two would wait for its own sums.
template <class Run>
DE_INLINE void evenly(int64_t n, int64_t most, Run run) {
  const int64_t parts = (n + most - 1) / most, count = n / parts, longer = n % parts;
  for (int64_t i = 0, first = 0; i < parts; ++i) {
    const int64_t size = count + (i < longer);
    run(first, size);
    first += size;
  }
}

// Calls run with n, 1 <= n <= N, as a constant.
template <int N, class Run>
DE_INLINE void constant(int64_t n, Run run) {
  if constexpr (N > 1)
    if (n < N) return constant<N - 1>(n, run);
  run(std::integral_constant<int, N>());
}

// sum[r] += a[r row + i step] b[i] over i < n, where b[i] is V vectors of a panel.
template <int R, int V>
DE_INLINE void multiply(const float* a, int64_t row, int64_t step, const float* b, int64_t n,
                        Float (&sum)[R][V]) {
  for (int64_t i = 0; i < n; ++i) {
    Float x[V];
    for (int v = 0; v < V; ++v) x[v] = load<Float>(b + i * PANEL + v * W);
    for (int r = 0; r < R; ++r) {
      const Float factor = splat(a[r * row + i * step]);
      for (int v = 0; v < V; ++v) sum[r][v] = multiply_add(factor, x[v], sum[r][v]);
    }
  }
}

// a[i] and b[i + by] in place of a[i + by] and b[i], for every i with no bit `by`.
template <int by, size_t... I>
DE_INLINE void exchange(Float& a, Float& b, std::index_sequence<I...>) {
  const Float first = __builtin_shufflevector(a, b, (int)(I & by ? W + I - by : I)...);
  b = __builtin_shufflevector(a, b, (int)(I & by ? W + I : I + by)...);
  a = first;
}

template <int by = 1>
DE_INLINE void transpose(Float (&t)[W]) {
  for (int i = 0; i < W; ++i)
    if (!(i & by)) exchange<by>(t[i], t[i + by], std::make_index_sequence<W>());
  if constexpr (2 * by < W) transpose<2 * by>(t);
}

}  // namespace
}  // namespace de
