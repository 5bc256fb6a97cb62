// Checksums of memory, to see whether it was written to.
#pragma once
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

// One for each (address, bytes). A change of one 8-byte word always shows, another one with all but
// certainty; the number of threads does not matter.
std::vector<uint64_t> checksums(const std::vector<std::pair<uintptr_t, int64_t>>& ranges);

}  // namespace de
