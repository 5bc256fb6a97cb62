// Tiles of a product in registers whose right matrix is packed into panels, and what becomes of its sums.
#pragma once
#include "../tile.h"
#include "../winograd_window.h"
#include "activation.h"
#include "conv.h"

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

DE_INLINE Float load_some(const float* p, int n) { return n == W ? load<Float>(p) : load_lanes(p, 0, n); }

// The epilogue of `count` sums, which are columns [column, column + count) of row i of sample b.
DE_INLINE void finish_row(const Epilogue& e, const Rows& out, int64_t b, int64_t i, int64_t column,
                          int64_t count, const float* sums) {
  for (int64_t c = 0; c < count; c += W) {
    const int n = (int)std::min<int64_t>(W, count - c);
    const int64_t at = column + c;
    Float y = load<Float>(sums + c);
    if (e.bias) y += load_some(e.bias + at, n);
    if (e.shift) y += load_some(e.shift + b * e.shift_batch + at, n);
    if (e.activation != NO_ACTIVATION) y = activate(y, e.activation);
    if (e.gate) y *= load_some(e.gate + b * e.gate_batch + at, n);
    if (e.residual.data)
      y += load_some(e.residual.data + b * e.residual.batch + i * e.residual.row + at, n);
    store_lanes(out.data + b * out.batch + i * out.row + at, y, n);
  }
}

}  // namespace
}  // namespace de
