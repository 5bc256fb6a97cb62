// One work item of a product of activations: see matmul.h.
#pragma once
#include "matmul.h"
#include "product_kernel.h"

namespace de {
namespace {

// Terms [0, depth) of columns [0, columns) of b, whose rows are terms, as panels.
inline void pack_terms(const float* b, int64_t row, int64_t depth, int64_t columns, float* to) {
  for (int64_t panel = 0; panel < columns; panel += CONV_PANEL)
    for (int64_t k = 0; k < depth; ++k, to += CONV_PANEL)
      for (int64_t i = 0; i < CONV_PANEL; i += W) {
        const int64_t n = std::min<int64_t>(W, std::max<int64_t>(0, columns - panel - i));
        store(to + i, n > 0 ? load_some(b + k * row + panel + i, (int)n) : Float{});
      }
}

// The same of b whose rows are columns.
inline void pack_columns(const float* b, int64_t row, int64_t depth, int64_t columns, float* to) {
  const int64_t end = ConvBlocks::parts_of(columns, CONV_PANEL) * CONV_PANEL;
  for (int64_t column = 0; column < end; column += W) {
    float* panel = to + column / CONV_PANEL * CONV_PANEL * depth + column % CONV_PANEL;
    for (int64_t k = 0; k < depth; k += W) {
      const int n = (int)std::min<int64_t>(W, depth - k);
      Float t[W];
      for (int i = 0; i < W; ++i)
        t[i] = column + i < columns ? load_some(b + (column + i) * row + k, n) : Float{};
      transpose(t);
      for (int i = 0; i < n; ++i) store(panel + (k + i) * CONV_PANEL, t[i]);
    }
  }
}

inline void matmul(const MatmulParams& p, const MatmulBlocks& blocks, int64_t item, float* scratch) {
  const int64_t parts = blocks.parts(p), row_blocks = blocks.row_blocks(p);
  const int64_t matrix = item / (parts * row_blocks), h = matrix % p.heads, batch = matrix / p.heads;
  const int64_t first = item / parts % row_blocks * blocks.rows;
  const int64_t column = item % parts * blocks.panels * CONV_PANEL;
  const int64_t rows = std::min(blocks.rows, p.rows - first);
  const int64_t columns = std::min(blocks.panels * CONV_PANEL, p.columns - column);
  const float* a = p.a.at(batch, h) + first * p.a.row;
  const float* b = p.b.at(batch, h) + column * (p.transposed ? p.b.row : 1);
  float* out = p.out.at(batch, h) + first * p.out.row + column;

  float* terms = scratch;
  float* sums = terms + blocks.rows * ConvBlocks::ROW;
  float* panels = sums + blocks.rows * blocks.sums_row();
  const auto finish = [&](int64_t r, int64_t number, int64_t from, int64_t width) {
    for (int64_t i = r; i < r + number; ++i)
      for (int64_t c = from; c < from + width; c += W) {
        const Float y = load<Float>(sums + i * blocks.sums_row() + c) * p.alpha;
        store_lanes(out + i * p.out.row + c, y, (int)std::min<int64_t>(W, from + width - c));
      }
  };
  evenly(p.depth, CONV_DEPTH, [&](int64_t k, int64_t depth) {
    for (int64_t r = 0; r < rows; ++r) copy_over(terms + r * ConvBlocks::ROW, a + r * p.a.row + k, depth);
    if (p.transposed)
      pack_columns(b + k, p.b.row, depth, columns, panels);
    else
      pack_terms(b + k * p.b.row, p.b.row, depth, columns, panels);
    multiply_panels({terms, ConvBlocks::ROW}, rows, panels, panels, depth, columns, sums, blocks.sums_row(), k > 0,
                    [&](int64_t r, int64_t number, int64_t from, int64_t width) {
                      if (k + depth == p.depth) finish(r, number, from, width);
                    });
  });
}

}  // namespace
}  // namespace de
