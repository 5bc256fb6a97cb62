// The op `norms` (diffusion_engine/ops/norms.py): the sums of a segment, a block at a time.
#pragma once
#include "memory.h"
#include "reductions.h"

namespace de {
namespace {

constexpr int HALF = W / 2;  // doubles of a vector
typedef double Double __attribute__((vector_size(4 * W)));
typedef float HalfFloat __attribute__((vector_size(2 * W)));

// a b + c. The product of two floats is exact in double: rounded once or twice makes no difference.
DE_INLINE Double multiply_add(Double a, Double b, Double c) {
#if defined(__AVX512F__)
  return (Double)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (Double)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

DE_INLINE Double widened(const float* from) { return __builtin_convertvector(load<HalfFloat>(from), Double); }

// W lanes of a block's rows: sums[s] is where those of sum s lie.
template <bool TWO>
DE_INLINE void add_rows(const float* x, const float* y, double (*sums)[LANES_OF_SUM]) {
  Double total[SUMS][2] = {};
  for (int row = 0; row < ROWS_OF_SUM; ++row)
    for (int h = 0; h < 2; ++h) {
      const int at = row * LANES_OF_SUM + h * HALF;
      const Double a = widened(x + at);
      total[0][h] += a;
      total[2][h] = multiply_add(a, a, total[2][h]);
      if (TWO) {
        const Double b = widened(y + at);
        total[1][h] += b;
        total[3][h] = multiply_add(b, b, total[3][h]);
        total[4][h] = multiply_add(a, b, total[4][h]);
      }
    }
  for (int s = 0; s < SUMS; ++s)
    for (int h = 0; h < 2; ++h) store(sums[s] + h * HALF, total[s][h]);
}

// The halving tree over n values, a power of two.
template <int n>
DE_INLINE double tree(double* values) {
  for (int half = n / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) values[i] += values[i + half];
  return values[0];
}

// A block's elements as they lie, or else a copy of them; elements that it lacks are 0.
inline const float* block_of(const NormsParams& p, const View& v, int64_t b, int64_t first, int64_t n,
                             float* copy) {
  const float* data = (const float*)v.data + b * v.batch;
  if (p.channels == 1 && v.pixel == 1 && n == BLOCK_OF_SUM) return data + first;
  View own = v;
  own.data = (void*)data;
  const Order order(p.channels, p.pixels, View{nullptr, 0, p.pixels, 1, F32});
  gather<F32>(order, own, first, n, copy);
  for (int64_t i = n; i < BLOCK_OF_SUM; ++i) copy[i] = 0.0f;
  return copy;
}

template <bool TWO>
void add_segment(const NormsParams& p, int64_t b, int64_t segment, double* to) {
  alignas(64) double blocks[SUMS][BLOCKS_OF_SUM] = {}, lanes[SUMS][LANES_OF_SUM];
  alignas(64) float copies[2][BLOCK_OF_SUM];
  const int64_t begin = segment * SEGMENT_OF_SUM, end = p.size();
  for (int block = 0; block < BLOCKS_OF_SUM; ++block) {
    const int64_t first = begin + block * BLOCK_OF_SUM, rest = end - first;
    if (rest <= 0) break;
    const int64_t n = rest < BLOCK_OF_SUM ? rest : BLOCK_OF_SUM;
    const float* x = block_of(p, p.x, b, first, n, copies[0]);
    const float* y = TWO ? block_of(p, p.y, b, first, n, copies[1]) : nullptr;
    for (int lane = 0; lane < LANES_OF_SUM; lane += W) {
      double part[SUMS][LANES_OF_SUM];
      add_rows<TWO>(x + lane, TWO ? y + lane : nullptr, part);
      for (int s = 0; s < SUMS; ++s) std::memcpy(lanes[s] + lane, part[s], W * sizeof(double));
    }
    for (int s = 0; s < SUMS; ++s) blocks[s][block] = tree<LANES_OF_SUM>(lanes[s]);
  }
  for (int s = 0; s < SUMS; ++s) to[s] = tree<BLOCKS_OF_SUM>(blocks[s]);
}

void norms(const NormsParams& p, int64_t b, int64_t segment, double* to) {
  if (p.y.data) return add_segment<true>(p, b, segment, to);
  add_segment<false>(p, b, segment, to);
}

}  // namespace
}  // namespace de
