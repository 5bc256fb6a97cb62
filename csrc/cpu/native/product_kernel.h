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
constexpr int SPREAD = 8;    // tiles, at most, that ask for the next panel between them

// What a tile asks memory for while it runs: one of `tiles` parts of the next panel. The processor's own
// prefetching ends with every page, and were only one tile to ask, memory would rest during the others.
struct Ahead {
  const float* from;
  int shift;

  Ahead(const float* next, const float* own, int64_t depth, int64_t tile, int64_t tiles) : from(own), shift(0) {
    while (2 << shift <= std::min<int64_t>(tiles, SPREAD)) ++shift;
    if (tile >> shift == 0) from = next + (tile * depth >> shift) * CONV_PANEL;
  }
};

// The left matrix: row r is at data + r * row.
struct Left {
  const float* data;
  int64_t row;
};

// to [R][V W] = (add: +) rows of `a` times `depth` terms of a panel, V vectors from `b` on. What lies beyond
// the panel is in the next one, `depth` terms later.
template <int R, int V>
DE_INLINE void product(Left a, const float* b, int64_t depth, Ahead ahead, float* to, int64_t to_row, bool add) {
  Float sum[R][V] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Float x[V];
    for (int v = 0; v < V; ++v) {
      const int64_t at = v * W / CONV_PANEL * depth * CONV_PANEL + v * W % CONV_PANEL;
      x[v] = load<Float>(b + at + k * CONV_PANEL);
      if (v * W % 16 == 0) __builtin_prefetch(ahead.from + at + (k >> ahead.shift) * CONV_PANEL, 0, 2);
    }
    for (int r = 0; r < R; ++r) {
      const Float factor = splat(a.data[r * a.row + k]);
      for (int v = 0; v < V; ++v) sum[r][v] = multiply_add(factor, x[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      float* at = to + r * to_row + v * W;
      store(at, add ? load<Float>(at) + sum[r][v] : sum[r][v]);
    }
}

// Rows of `a` times `columns` columns of panels that begin at b; `next` is what will be read after them. done(row, rows, column, columns) follows each tile. Sums lie in rows of to_row floats.
template <class Done>
DE_INLINE void multiply_panels(Left a, int64_t rows, const float* b, const float* next, int64_t depth,
                               int64_t columns, float* to, int64_t to_row, bool add, Done done) {
  const int64_t vectors = (columns + W - 1) / W;
  const auto panel = [&](int64_t v) { return b + v * W / CONV_PANEL * depth * CONV_PANEL + v * W % CONV_PANEL; };
  const auto column_of_tiles = [&](int64_t v, auto wide) {
    constexpr int MOST = decltype(wide)::value > 2 ? FEW_ROWS : TILE_ROWS;
    const float *from = panel(v), *after = v + wide < vectors ? panel(v + wide) : next;
    const int64_t width = std::min<int64_t>(wide * W, columns - v * W), tiles = (rows + MOST - 1) / MOST;
    int64_t tile = 0;
    evenly(rows, MOST, [&](int64_t r, int64_t count) {
      const Ahead ahead(after, from, depth, tile++, tiles);
      constant<MOST>(count, [&](auto tall) {
        product<tall, wide>({a.data + r * a.row, a.row}, from, depth, ahead, to + r * to_row + v * W, to_row,
                            add);
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

// Sums for a few columns, whose vectors run along the terms: to [R][N][W] = (add: +) rows of `a` times N rows
// of b. Terms are 0 from `depth` to the next vector's start.
template <int R, int N>
DE_INLINE void dots(const float* a, const float* b, int64_t b_row, int64_t depth, float* to, int64_t to_row,
                    bool add) {
  Float sum[R][N] = {};
  if (add)
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) sum[r][n] = load<Float>(to + r * to_row + n * W);
  for (int64_t k = 0; k < depth; k += W) {
    Float x[N];
    for (int n = 0; n < N; ++n) x[n] = load<Float>(b + n * b_row + k);
    for (int r = 0; r < R; ++r) {
      const Float terms = load<Float>(a + r * ConvBlocks::ROW + k);
      for (int n = 0; n < N; ++n) sum[r][n] = multiply_add(terms, x[n], sum[r][n]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) store(to + r * to_row + n * W, sum[r][n]);
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
