#include "attention.h"

#include <omp.h>

#include <algorithm>

#include "run.h"
#include "scratch.h"

namespace de {

// Another thread is worth its waking from so many multiplications on.
constexpr int64_t PER_THREAD = 1 << 20;
// Floats of an item's queries and sums, and keys of a block: with the packed keys and values they fit
// into a second cache of 512 KiB. Of 16,384 to 131,072 and 64 to 256 these were the fastest, by 8 %
// over 32,768 and 128 at head dim 256.
constexpr int64_t QUERY_FLOATS = 65536, KEYS = 64;

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

AttentionBlocks attention_blocks(const AttentionParams& p, int64_t threads) {
  constexpr int64_t QUERIES = AttentionBlocks::QUERIES;
  const int64_t fit = QUERY_FLOATS / 2 / p.dim, heads = p.batch * p.heads;
  const int64_t wanted = (2 * threads + heads - 1) / heads;  // blocks a head
  const int64_t queries = std::min(fit, (p.queries + wanted - 1) / wanted);
  AttentionBlocks blocks;
  blocks.queries = std::max(QUERIES, std::min(round_up(queries, QUERIES), fit / QUERIES * QUERIES));
  blocks.keys = std::min(p.keys, KEYS);
  // An odd number of cache lines: columns of packed rows are spread over all sets of the cache.
  blocks.row = round_up(p.dim, 16) | 16;
  return blocks;
}

void run_attention(const AttentionParams& p) {
  const auto attention = kernels().attention;
  const int64_t work = 2 * p.batch * p.heads * p.queries * p.keys * p.dim;
  int threads = (int)std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), work / PER_THREAD));
  const AttentionBlocks blocks = attention_blocks(p, threads);
  const int64_t items = blocks.items(p), floats = blocks.scratch(p);
  threads = (int)std::min<int64_t>(threads, items);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t item = 0; item < items; ++item) attention(p, blocks, item, scratch(floats));
}

}  // namespace de
