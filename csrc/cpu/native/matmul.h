// Products of two activations, one for each head of each sample.
#pragma once
#include <algorithm>

#include "conv.h"

namespace de {

// Matrices: row i of head h of sample b is at data + b * batch + h * head + i * row.
struct Matrices {
  float* data = nullptr;
  int64_t batch = 0, head = 0, row = 0;

  float* at(int64_t b, int64_t h) const { return data + b * batch + h * head; }
};

// out[b][h] = alpha a[b][h] b[b][h]: a has `rows` rows of `depth`, out of `columns`; b has `depth` rows of
// `columns`, or `columns` rows of `depth` where it is transposed.
struct MatmulParams {
  int64_t batch = 0, heads = 1, rows = 0, columns = 0, depth = 0;
  bool transposed = false;
  float alpha = 1.0f;
  Matrices a, b, out;
};

// An item is a block of rows and a part of the columns of one head. No sum depends on it.
struct MatmulBlocks {
  int64_t rows = 0, panels = 0, depth = 0;  // of an item; the depth that is packed at a time

  int64_t sums_row() const { return (panels * CONV_PANEL) | 16; }
  int64_t row_blocks(const MatmulParams& p) const { return ConvBlocks::parts_of(p.rows, rows); }
  int64_t parts(const MatmulParams& p) const {
    return ConvBlocks::parts_of(p.columns, panels * CONV_PANEL);
  }
  int64_t items(const MatmulParams& p) const { return p.batch * p.heads * row_blocks(p) * parts(p); }
  int64_t scratch() const {
    return rows * (ConvBlocks::ROW + sums_row()) + panels * CONV_PANEL * depth;
  }
};

Task matmul_task(const MatmulParams& p, int64_t threads);

}  // namespace de
