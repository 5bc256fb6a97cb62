// Blocks of the ops `norms` and `quantile` (diffusion_engine/ops/). Host and device: the tests run the same
// code on a CPU.
#pragma once
#include "access.cuh"
#include "reductions.h"
#include "warp.cuh"

namespace de {

constexpr int NORMS_THREADS = BLOCKS_OF_SUM * LANES_OF_SUM;
constexpr int QUANTILE_THREADS = 1024, DIGITS = 256;

// Element i of a sample, in logical order.
DE_HD float element_of(const View& v, int64_t b, int64_t channels, int64_t pixels, int64_t i) {
  const float* data = static_cast<const float*>(v.data) + b * v.batch;
  if (channels == 1) return data[i * v.pixel];
  int64_t channel, pixel;
  divide(i, pixels, channel, pixel);
  return data[channel * v.channel + pixel * v.pixel];
}

struct NormsShared {
  double sum[SUMS][NORMS_THREADS];
};

// The halving tree of `count` sums that lie `step` apart, at the threads' own; all threads call it.
DE_HD void halve(NormsShared& s, int thread, int place, int count, int step) {
#pragma unroll 1
  for (int half = count / 2; half > 0; half /= 2) {
    barrier();
    if (place < half)
      for (int k = 0; k < SUMS; ++k) s.sum[k][thread] = s.sum[k][thread] + s.sum[k][thread + half * step];
  }
}

// The sums of a segment of sample b, into SUMS doubles.
template <bool TWO>
DE_HD void norms_block(const NormsParams& p, int64_t b, int64_t segment, int thread, NormsShared& s, double* to) {
  const int64_t block = thread / LANES_OF_SUM, lane = thread % LANES_OF_SUM, size = p.size();
  const int64_t first = segment * SEGMENT_OF_SUM + block * BLOCK_OF_SUM + lane;
  double total[SUMS] = {};
#pragma unroll 8
  for (int row = 0; row < ROWS_OF_SUM; ++row) {
    const int64_t i = first + row * LANES_OF_SUM;
    const double x = i < size ? (double)element_of(p.x, b, p.channels, p.pixels, i) : 0.0;
    total[0] = total[0] + x;
    total[2] = total[2] + x * x;
    if (TWO) {
      const double y = i < size ? (double)element_of(p.y, b, p.channels, p.pixels, i) : 0.0;
      total[1] = total[1] + y;
      total[3] = total[3] + y * y;
      total[4] = total[4] + x * y;
    }
  }
  for (int k = 0; k < SUMS; ++k) s.sum[k][thread] = total[k];
  halve(s, thread, (int)lane, LANES_OF_SUM, 1);
  halve(s, thread, lane == 0 ? (int)block : NORMS_THREADS, BLOCKS_OF_SUM, LANES_OF_SUM);
  if (thread == 0)
    for (int k = 0; k < SUMS; ++k) to[k] = s.sum[k][0];
}

// Sum k of the segments of sample b, in order.
DE_HD void merge_norms(const NormsParams& p, int64_t b, int k) {
  const double* parts = static_cast<const double*>(p.workspace) + b * p.segments() * SUMS;
  double total = 0.0;
  for (int64_t segment = 0; segment < p.segments(); ++segment) total = total + parts[segment * SUMS + k];
  p.out[b * SUMS + k] = total;
}

// Where the sums of a segment go.
DE_HD double* part_of(const NormsParams& p, int64_t turn) {
  return (p.segments() == 1 ? p.out : static_cast<double*>(p.workspace)) + turn * SUMS;
}

DE_HD void add_to(uint32_t& at, uint32_t n) {
#ifdef __CUDA_ARCH__
  atomicAdd(&at, n);
#else
  at += n;
#endif
}

DE_HD void at_most(uint32_t& at, uint32_t n) {
#ifdef __CUDA_ARCH__
  atomicMin(&at, n);
#else
  if (n < at) at = n;
#endif
}

DE_HD void at_least(uint32_t& at, uint32_t n) {
#ifdef __CUDA_ARCH__
  atomicMax(&at, n);
#else
  if (n > at) at = n;
#endif
}

struct QuantileShared {
  uint32_t count[DIGITS];
  uint32_t value, rank, equal;  // the bits of the wanted value that are known; its rank among their like
  uint32_t above, top;
};

// The next eight bits of the value of the wanted rank.
DE_HD void choose_digit(QuantileShared& s) {
  uint32_t digit = 0;
  while (s.rank >= s.count[digit]) s.rank -= s.count[digit++];
  s.value = s.value << 8 | digit;
  s.equal = s.count[digit];
}

// The quantile of sample b. Magnitudes as bits are in the order of the values: histograms of eight bits at
// a time, the highest first, find those of the wanted rank. Counts have no order: the bits are one's own.
DE_HD void quantile_block(const QuantileParams& p, int64_t b, int thread, QuantileShared& s) {
  const double q = p.q[b];
  const int64_t size = p.size();
  const uint32_t infinite = 0x7F800000u, none = 0xFFFFFFFFu;
  if (!(q >= 0.0 && q <= 1.0)) {
    if (thread == 0) p.out[b] = as_float(0x7FC00000u);
    return;
  }
  const auto bits = [&](int64_t i) {
    return as_bits(element_of(p.x, b, p.channels, p.pixels, i)) & 0x7FFFFFFFu;
  };
  const double position = q * (double)(size - 1), k = (double)(int64_t)position, w = position - k;
  if (thread == 0) s.value = 0, s.rank = (uint32_t)k, s.above = none, s.top = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int digit = thread; digit < DIGITS; digit += QUANTILE_THREADS) s.count[digit] = 0;
    barrier();
    for (int64_t i = thread; i < size; i += QUANTILE_THREADS) {
      const uint32_t value = bits(i);
      if (shift == 24 || value >> (shift + 8) == s.value) add_to(s.count[value >> shift & 255u], 1u);
    }
    barrier();
    if (thread == 0) choose_digit(s);
    barrier();
  }
  uint32_t above = none, top = 0;
  for (int64_t i = thread; i < size; i += QUANTILE_THREADS) {
    const uint32_t value = bits(i);
    if (value > s.value && value < above) above = value;
    if (value > top) top = value;
  }
  at_most(s.above, above);
  at_least(s.top, top);
  barrier();
  if (thread != 0) return;
  const bool last = s.rank + 1 < s.equal || s.above == none;  // the next value is the same, or there is none
  const float low = as_float(s.value), high = last ? low : as_float(s.above);
  const double between = (double)low + w * ((double)high - (double)low);
  p.out[b] = s.top > infinite ? as_float(s.top) : w == 0.0 || low == high ? low : (float)between;
}

}  // namespace de
