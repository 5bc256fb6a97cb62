// Checksums of memory, to see whether it was written to.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace de {

// One for each (address, bytes). A change of one 8-byte word always shows, another one with all but
// certainty; the number of threads does not matter.
std::vector<uint64_t> checksums(const std::vector<std::pair<uintptr_t, int64_t>>& ranges);

}  // namespace de
