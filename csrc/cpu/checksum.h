// Checksums of memory, to see whether it was written to.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace de {

// The round of xxHash64 (Collet 2012): of `sum` for a fixed word, and of the word for a fixed sum, it is
// a bijection.
static inline uint64_t round_of(uint64_t sum, uint64_t word) {
  sum += word * 0xC2B2AE3D27D4EB4Full;
  sum = sum << 31 | sum >> 33;
  return sum * 0x9E3779B185EBCA87ull;
}

using Ranges = std::vector<std::pair<uintptr_t, int64_t>>;  // (address, bytes)

// One sum for each range. A change of one 8-byte word always shows, another one with all but certainty; the
// number of threads does not matter.
class Checksums {
 public:
  explicit Checksums(const Ranges& ranges);
  int64_t items() const { return (int64_t)blocks_.size(); }
  int64_t bytes() const { return bytes_; }
  // Any thread may run any item, beside others.
  void run(int64_t item);
  // After all items.
  std::vector<uint64_t> end() const;

 private:
  struct Block {
    const unsigned char* from;
    int64_t bytes;
    size_t range;
    uint64_t sum;
  };

  std::vector<Block> blocks_;
  size_t ranges_;
  int64_t bytes_ = 0;
};

// On threads of OpenMP's.
std::vector<uint64_t> checksums(const Ranges& ranges);

}  // namespace de
