#include "checksum.h"

#include <omp.h>

#include <algorithm>

#include "run.h"

namespace de {
namespace {

constexpr int64_t BLOCK = 1 << 18;       // bytes of a work item
constexpr int64_t PER_THREAD = 1 << 19;  // bytes for which another thread is worth its waking

struct Block {
  const unsigned char* from;
  int64_t bytes;
  size_t range;
};

}  // namespace

std::vector<uint64_t> checksums(const std::vector<std::pair<uintptr_t, int64_t>>& ranges) {
  std::vector<Block> blocks;
  int64_t total = 0;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto* from = reinterpret_cast<const unsigned char*>(ranges[i].first);
    const int64_t bytes = ranges[i].second;
    for (int64_t at = 0; at < bytes; at += BLOCK)
      blocks.push_back({from + at, std::min(BLOCK, bytes - at), i});
    total += bytes;
  }
  std::vector<uint64_t> found(blocks.size()), sums(ranges.size(), 0);
  const auto sum = kernels().checksum;
  const int64_t count = (int64_t)blocks.size();
  const int threads = (int)std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), total / PER_THREAD));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < count; ++i) found[i] = sum(blocks[i].from, blocks[i].bytes);
  for (int64_t i = 0; i < count; ++i) {
    uint64_t& all = sums[blocks[i].range];
    all = round_of(all, found[i]);
  }
  return sums;
}

}  // namespace de
