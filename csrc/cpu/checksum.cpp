#include "checksum.h"

#include <omp.h>

#include <algorithm>
#include <cstring>

namespace de {
namespace {

constexpr int64_t BLOCK = 1 << 18;       // bytes of a work item
constexpr int64_t PER_THREAD = 1 << 19;  // bytes for which another thread is worth its waking
constexpr int LANES = 8;                 // sums at a time: a multiplication takes three cycles

// The round of xxHash64 (Collet 2012): of `sum` for a fixed word, and of the word for a fixed sum, it is
// a bijection.
inline uint64_t round_of(uint64_t sum, uint64_t word) {
  sum += word * 0xC2B2AE3D27D4EB4Full;
  sum = sum << 31 | sum >> 33;
  return sum * 0x9E3779B185EBCA87ull;
}

inline void add(uint64_t (&sums)[LANES], const unsigned char* from) {
  uint64_t words[LANES];
  std::memcpy(words, from, sizeof words);
  for (int lane = 0; lane < LANES; ++lane) sums[lane] = round_of(sums[lane], words[lane]);
}

uint64_t block_sum(const unsigned char* from, int64_t bytes) {
  uint64_t sums[LANES] = {1, 2, 3, 4, 5, 6, 7, 8};
  constexpr int64_t STRIDE = sizeof sums;
  int64_t at = 0;
  for (; at + STRIDE <= bytes; at += STRIDE) add(sums, from + at);
  if (at < bytes) {
    unsigned char rest[STRIDE] = {};
    std::memcpy(rest, from + at, bytes - at);
    add(sums, rest);
  }
  uint64_t all = (uint64_t)bytes;
  for (const uint64_t sum : sums) all = round_of(all, sum);
  return all;
}

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
  const int64_t count = (int64_t)blocks.size();
  const int threads = (int)std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), total / PER_THREAD));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < count; ++i) found[i] = block_sum(blocks[i].from, blocks[i].bytes);
  for (int64_t i = 0; i < count; ++i) {
    uint64_t& sum = sums[blocks[i].range];
    sum = round_of(sum, found[i]);
  }
  return sums;
}

}  // namespace de
