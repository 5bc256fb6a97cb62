// What the emulation of AMX has done so far, by all threads.
#pragma once
#include <atomic>
#include <cstdint>

namespace de {

struct AmxCounts {
  std::atomic<int64_t> dots{0}, loads{0}, stores{0};
};

extern AmxCounts amx_counts;

}  // namespace de
