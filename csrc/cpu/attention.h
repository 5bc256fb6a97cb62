// What the C++ kernels of attention share with the code that spreads it over threads.
#pragma once
#include "layers.h"

namespace de {

// A work item is a block of queries of one head. It walks over blocks of keys, which depend on the
// number of keys alone: they decide the order of the sums.
struct AttentionBlocks {
  int64_t queries;  // of an item, a multiple of QUERIES
  int64_t keys;     // at most so many at a time
  int64_t row;      // floats from a packed key to the next one

  static constexpr int64_t QUERIES = 32;  // the widest panel, two vectors of AVX-512

  int64_t items(const AttentionParams& p) const {
    return p.batch * p.heads * ((p.queries + queries - 1) / queries);
  }
  // Of an item: queries and sums, scores of a panel, maxima, totals, keys and values.
  int64_t scratch(const AttentionParams& p) const {
    return 2 * queries * (p.dim + 1) + keys * (QUERIES + 2 * row);
  }
};

void run_attention(const AttentionParams& p);

}  // namespace de
