// A thread's share of the op `brownian` (diffusion_engine/ops/brownian.py): four elements at a time.
#pragma once
#include "access.cuh"

namespace de {

template <bool VEC>
DE_HD void brownian_thread(const BrownianParams& p, const Grid& g, int64_t b, int draw, int block,
                           int thread) {
  const int64_t r = p.row[b];
  if (r < 0) return;
  const int32_t* terms = p.terms + (r * p.draws + draw) * (HEADER + TERMS);
  const float* weight = p.weight + (r * p.draws + draw) * TERMS;
  const int32_t count = terms[0];
  const uint32_t m = (uint32_t)terms[1];
  const uint64_t seed = (uint64_t)p.seed[b];
  if (count <= 0) return;
  for (int64_t turn = (int64_t)block * THREADS + thread; turn < g.groups;
       turn += (int64_t)g.blocks * THREADS) {
    const Place at = place_of(g, turn);
    float sum[WIDTH] = {}, z[WIDTH];
#ifdef __CUDACC__
#pragma unroll 1
#endif
    for (int i = 0; i < count; ++i) {
      normals4(seed, (uint32_t)terms[HEADER + i], m, (uint64_t)at.group, z);
      for (int k = 0; k < WIDTH; ++k) sum[k] = sum[k] + weight[i] * z[k];
    }
    store<VEC>(g, at, p.out, address(p.out, b * p.out.batch + draw * p.out_draw), sum);
  }
}

}  // namespace de
