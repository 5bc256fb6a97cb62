// The op `brownian` (diffusion_engine/ops/brownian.py): weighted sums of normals, a chunk of elements
// at a time.
#pragma once
#include "memory.h"
#include "noise.h"
#include "random.h"

namespace de {
namespace {

// sum[i] += weight * z[i], product and sum rounded on their own; n rounded up to whole vectors.
DE_INLINE void accumulate(float* sum, float weight, const float* z, int64_t n) {
  for (int64_t i = 0; i < n; i += W)
    store(sum + i, load<Float>(sum + i) + load<Float>(z + i) * weight);
}

// Elements [first, last) of sample b, counted (channel, pixel) whatever the layout.
inline void increment(const BrownianParams& p, int64_t b, int64_t draw, int64_t first, int64_t last) {
  const int64_t row = p.row[b] * (int64_t)p.draws + draw;
  const int32_t* terms = p.terms + row * (HEADER + TERMS);
  const float* weight = p.weight + row * TERMS;
  float* data = (float*)p.out.data + b * p.out.batch + draw * p.out_draw;
  alignas(64) float sum[CHUNK], z[CHUNK] = {};
  for (int64_t e = first; terms[0] > 0 && e < last;) {
    const int64_t c = e / p.pixels, px = e % p.pixels, rest = p.pixels - px;
    int64_t n = last - e < rest ? last - e : rest;
    if (n > CHUNK) n = CHUNK - e % 4;  // whole Philox blocks from the next chunk on
    for (int64_t i = 0; i < n; i += W) store(sum + i, Float{});
    for (int i = 0; i < terms[0]; ++i) {
      fill_normals(Normals((uint64_t)p.seed[b], (uint32_t)terms[HEADER + i], (uint32_t)terms[1]), e, n, z, 1);
      accumulate(sum, weight[i], z, n);
    }
    float* to = data + c * p.out.channel + px * p.out.pixel;
    for (int64_t i = 0; i < n; ++i) to[i * p.out.pixel] = sum[i];
    e += n;
  }
}

void brownian(const BrownianParams& p, int64_t b0, int64_t b1, int64_t first, int64_t last) {
  for (int64_t b = b0; b < b1; ++b)
    for (int32_t draw = 0; p.row[b] >= 0 && draw < p.draws; ++draw) increment(p, b, draw, first, last);
}

}  // namespace
}  // namespace de
