// Tiles of a product in registers whose right matrix is packed into panels.
#pragma once
#include "../tile.h"
#include "conv.h"
#include "epilogue_kernel.h"

namespace de {
namespace {

// Rows of a tile: 28 of AVX-512's 32 registers hold sums, 12 of AVX2's 16.
constexpr int TILE_ROWS = W == 16 ? 14 : 6;
constexpr int FEW_ROWS = 3;  // up to which a tile is twice as wide: it would wait for its own sums
// Floats between a panel's term and the one that is asked for with it: the time of a read from memory.
constexpr int64_t AHEAD = 1024;

// to [R][V W] = (add: +) rows of `a` times `depth` terms of a panel, V vectors from `b` on. What lies beyond
// the panel is in the next one, `depth` terms later.
template <int R, int V, bool FIRST>
DE_INLINE void product(const float* a, const float* b, int64_t depth, float* to, int64_t to_row, bool add) {
  Float sum[R][V] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Float x[V];
    for (int v = 0; v < V; ++v) {
      const float* at = b + v * W / CONV_PANEL * depth * CONV_PANEL + v * W % CONV_PANEL + k * CONV_PANEL;
      x[v] = load<Float>(at);
      if (FIRST && v * W % 16 == 0) __builtin_prefetch(at + AHEAD, 0, 3);
    }
    for (int r = 0; r < R; ++r) {
      const Float factor = splat(a[r * ConvBlocks::ROW + k]);
      for (int v = 0; v < V; ++v) sum[r][v] = multiply_add(factor, x[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      float* at = to + r * to_row + v * W;
      store(at, add ? load<Float>(at) + sum[r][v] : sum[r][v]);
    }
}

// Rows of gathered terms times `columns` columns of panels that begin at b; done(row, rows, column, columns)
// follows each tile. Sums lie in rows of to_row floats.
template <class Done>
DE_INLINE void multiply_panels(const float* a, int64_t rows, const float* b, int64_t depth, int64_t columns,
                               float* to, int64_t to_row, bool add, Done done) {
  const int64_t vectors = (columns + W - 1) / W;
  const auto column_of_tiles = [&](int64_t v, auto wide) {
    constexpr int MOST = decltype(wide)::value > 2 ? FEW_ROWS : TILE_ROWS;
    const float* from = b + v * W / CONV_PANEL * depth * CONV_PANEL + v * W % CONV_PANEL;
    const int64_t width = std::min<int64_t>(wide * W, columns - v * W);
    evenly(rows, MOST, [&](int64_t r, int64_t count) {
      const float* left = a + r * ConvBlocks::ROW;
      float* at = to + r * to_row + v * W;
      constant<MOST>(count, [&](auto tall) {
        r == 0 ? product<tall, wide, true>(left, from, depth, at, to_row, add)
               : product<tall, wide, false>(left, from, depth, at, to_row, add);
      });
      done(r, count, v * W, width);
    });
  };
  int64_t v = 0;
  if (rows <= FEW_ROWS)
    for (; v + 4 <= vectors; v += 4) column_of_tiles(v, std::integral_constant<int, 4>());
  for (; v + 2 <= vectors; v += 2) column_of_tiles(v, std::integral_constant<int, 2>());
  if (v < vectors) column_of_tiles(v, std::integral_constant<int, 1>());
}

// Copies and zeros in whole vectors: up to W - 1 floats after `to + n` are overwritten.
DE_INLINE void copy_over(float* to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; i += W) store(to + i, load_some(from + i, (int)std::min<int64_t>(W, n - i)));
}

DE_INLINE void zero_over(float* to, int64_t n) {
  for (int64_t i = 0; i < n; i += W) store(to + i, Float{});
}

}  // namespace
}  // namespace de
