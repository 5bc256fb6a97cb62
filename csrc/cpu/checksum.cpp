#include "checksum.h"

#include <omp.h>

#include <algorithm>

#include "run.h"

namespace de {

constexpr int64_t BLOCK = 1 << 18;       // bytes of an item
constexpr int64_t PER_THREAD = 1 << 19;  // bytes for which another thread is worth its waking

Checksums::Checksums(const Ranges& ranges) : ranges_(ranges.size()) {
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto* from = reinterpret_cast<const unsigned char*>(ranges[i].first);
    const int64_t bytes = ranges[i].second;
    for (int64_t at = 0; at < bytes; at += BLOCK) blocks_.push_back({from + at, std::min(BLOCK, bytes - at), i, 0});
    bytes_ += bytes;
  }
}

void Checksums::run(int64_t item) {
  Block& block = blocks_[item];
  block.sum = kernels().checksum(block.from, block.bytes);
}

std::vector<uint64_t> Checksums::end() const {
  std::vector<uint64_t> sums(ranges_, 0);
  for (const Block& block : blocks_) sums[block.range] = round_of(sums[block.range], block.sum);
  return sums;
}

std::vector<uint64_t> checksums(const Ranges& ranges) {
  Checksums sums(ranges);
  const int64_t count = sums.items();
  const int threads = (int)std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), sums.bytes() / PER_THREAD));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t item = 0; item < count; ++item) sums.run(item);
  return sums.end();
}

}  // namespace de
