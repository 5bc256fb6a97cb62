// Attention of a recorded network with products of bf16: queries, keys, values and weights are rounded as they
// are packed, everything else is float32.
#pragma once
#include "../attend.h"

namespace de {

// A work item is a block of queries of one head. It walks over blocks of keys, which depend on the number of
// keys alone: they decide the order of the sums.
struct HalfAttendBlocks {
  int64_t queries;  // of an item
  int64_t keys;     // at most so many at a time
  int64_t dim;      // p.dim rounded up

  // What all are multiples of: the queries of a panel, and terms of a product.
  static constexpr int64_t UNIT = 32;
  static int64_t round_up(int64_t n) { return (n + UNIT - 1) / UNIT * UNIT; }

  // Numbers of bf16 from a packed row to the next one: odd numbers of cache lines, so that the rows of a tile
  // do not share sets of a cache.
  int64_t key_row() const { return dim | UNIT; }
  int64_t value_row() const { return keys | UNIT; }

  int64_t items(const AttendParams& p) const {
    return p.batch * p.heads * ((p.queries + queries - 1) / queries);
  }
  // Floats. Of an item: sums, maxima, totals and, in bf16, queries; of a block: scores, a panel of a mask and,
  // in bf16, weights, keys and values.
  int64_t scratch(bool masked) const {
    const int64_t item = queries * (dim + 2 + dim / 2), panel = keys * UNIT;
    return item + panel * (masked ? 2 : 1) + (panel + keys * key_row() + dim * value_row()) / 2;
  }
};

Task attend_bf16_task(const AttendParams& p, int64_t threads);

}  // namespace de
