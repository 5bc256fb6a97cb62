// Memory of a thread's own.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace de {

// Scratch of this thread from a cache line's start on, kept between calls and used by one kernel at a time.
inline float* scratch(int64_t floats) {
  constexpr size_t LINE = 64 / sizeof(float);
  static thread_local std::unique_ptr<float[]> kept;
  static thread_local size_t size = 0, start = 0;
  if (size < (size_t)floats + LINE) {
    size = (size_t)floats + LINE;
    kept.reset(new float[size]);
    start = (LINE - (uintptr_t)kept.get() / sizeof(float) % LINE) % LINE;
  }
  return kept.get() + start;
}

}  // namespace de
