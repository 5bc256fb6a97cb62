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
  // Of an item: queries and sums, scores of a panel, maxima, totals, keys and values, a panel of a mask.
  int64_t scratch(const AttentionParams& p, bool masked = false) const {
    return 2 * queries * (p.dim + 1) + keys * (QUERIES + 2 * row + (masked ? QUERIES : 0));
  }
};

// Added to the scaled scores: element (b, h, i, j) at data + b * batch + h * head + i * query + j. Strides
// are 0 where samples, heads or queries share it. -infinity takes a key out; a query without any key gets 0.
struct Mask {
  const float* data = nullptr;
  int64_t batch = 0, head = 0, query = 0;
};

// The blocks of queries decide no sum: where there are few heads they are small, for the threads.
AttentionBlocks attention_blocks(const AttentionParams& p, int64_t threads);

void run_attention(const AttentionParams& p);

}  // namespace de
