// Rows of numbers in any dtype, read and written as floats.
#pragma once
#include "memory.h"

namespace de {
namespace {

template <class Convert>
DE_INLINE void each_half(const char* from, int64_t n, float* to, Convert convert) {
  int64_t i = 0;
  for (; i + W <= n; i += W) store(to + i, convert(load<Half>(from + 2 * i)));
  if (i == n) return;
  uint16_t rest[W] = {};
  float made[W];
  std::memcpy(rest, from + 2 * i, 2 * (n - i));
  store(made, convert(load<Half>(rest)));
  std::memcpy(to + i, made, 4 * (n - i));
}

// n numbers as floats: where they lie, or converted into the buffer.
inline const float* read_row(const char* from, int32_t dtype, int64_t n, float* buffer) {
  if (dtype == F32) return (const float*)from;
  if (dtype == BF16)
    each_half(from, n, buffer, from_bfloat);
  else
    each_half(from, n, buffer, from_half);
  return buffer;
}

// row + n numbers of another row, into the buffer, which may hold `row` already.
inline const float* add_row(const float* row, const char* other, int32_t dtype, int64_t n, float* buffer) {
  float made[W];
  for (int64_t i = 0; i < n; i += W) {
    const int64_t count = n - i < W ? n - i : W;
    const float* more = read_row(other + i * size_of(dtype), dtype, count, made);
    for (int64_t j = 0; j < count; ++j) buffer[i + j] = row[i + j] + more[j];
  }
  return buffer;
}

template <class Convert>
DE_INLINE void each_float(const float* from, int64_t n, char* to, Convert convert) {
  int64_t i = 0;
  for (; i + W <= n; i += W) store(to + 2 * i, convert(load<Float>(from + i)));
  if (i == n) return;
  float rest[W] = {};
  uint16_t made[W];
  std::memcpy(rest, from + i, 4 * (n - i));
  store(made, convert(load<Float>(rest)));
  std::memcpy(to + 2 * i, made, 2 * (n - i));
}

inline void write_row(char* to, int32_t dtype, int64_t n, const float* from) {
  if (dtype == F32)
    std::memmove(to, from, 4 * n);
  else if (dtype == BF16)
    each_float(from, n, to, to_bfloat);
  else
    each_float(from, n, to, to_half);
}

}  // namespace
}  // namespace de
