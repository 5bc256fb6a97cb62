// The op `quantile` (diffusion_engine/ops/quantile.py): one pass that counts and collects. It has no branch
// that depends on a value: a wrong guess at one would wait for memory, which took five times as long.
#pragma once
#include "quantile.h"
#include "vector.h"

namespace de {
namespace {

#if defined(__AVX2__) && !defined(__AVX512F__)
// The lanes of each mask of 8, the chosen ones first.
struct Chosen {
  int32_t lane[256][8] = {};

  constexpr Chosen() {
    for (int mask = 0; mask < 256; ++mask)
      for (int from = 0, to = 0; from < 8; ++from)
        if (mask >> from & 1) lane[mask][to++] = from;
  }
};

constexpr Chosen CHOSEN;
#endif

// Appends the lanes of a mask; `to` has room for a whole vector.
DE_INLINE void append(Int values, Int mask, int32_t* to, int64_t& count) {
#if defined(__AVX512F__)
  const __mmask16 chosen = _mm512_movepi32_mask((__m512i)mask);
  store(to + count, (Int)_mm512_maskz_compress_epi32(chosen, (__m512i)values));
  count += __builtin_popcount(chosen);
#elif defined(__AVX2__)
  const int chosen = _mm256_movemask_ps((__m256)mask);
  store(to + count, (Int)_mm256_permutevar8x32_epi32((__m256i)values, (__m256i)load<Int>(CHOSEN.lane[chosen])));
  count += __builtin_popcount(chosen);
#else
  for (int lane = 0; lane < W; ++lane) {
    to[count] = values[lane];
    count -= mask[lane];
  }
#endif
}

// The magnitudes, as bits, of n values that lie `step` apart: how many are below `low`, and those from
// `low` to `high`. `to` has room for all and a vector.
Between between(const float* x, int64_t n, int64_t step, int32_t low, int32_t high, int32_t* to) {
  Between found{0, 0, 0};
  int64_t i = 0;
  Int below = {}, top = {};
  for (; step == 1 && i + W <= n; i += W) {
    const Int bits = load<Int>(x + i) & 0x7FFFFFFF, less = bits < low;
    below -= less;
    top = bits > top ? bits : top;
    append(bits, ~less & (bits <= high), to, found.count);
  }
  for (int lane = 0; lane < W; ++lane) {
    found.below += below[lane];
    found.top = top[lane] > found.top ? top[lane] : found.top;
  }
  for (; i < n; ++i) {
    const int32_t bits = (int32_t)(as_bits(x[i * step]) & 0x7FFFFFFFu);
    found.below += bits < low;
    found.top = bits > found.top ? bits : found.top;
    to[found.count] = bits;
    found.count += bits >= low && bits <= high;
  }
  return found;
}

}  // namespace
}  // namespace de
