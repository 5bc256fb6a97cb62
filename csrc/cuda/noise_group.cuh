// A thread's share of the op `noise` (diffusion_engine/ops/noise.py): one Philox block at a time.
#pragma once
#include "access.cuh"

namespace de {

template <bool VEC>
DE_HD void noise_thread(const NoiseParams& p, const Grid& g, int64_t b, int block, int thread) {
  const uint64_t seed = (uint64_t)p.seed[b];
  uint32_t key = p.key;
  if (p.row) {
    const int64_t r = p.row[b];
    if (r < 0) return;
    key += (uint32_t)p.index[r * INDEX + KEY];
  }
  for (int64_t turn = (int64_t)block * THREADS + thread; turn < g.groups;
       turn += (int64_t)g.blocks * THREADS) {
    const Place at = place_of(g, turn);
    float z[WIDTH];
    normals4(seed, key, p.m, (uint64_t)at.group, z);
    store<VEC>(g, at, p.out, address(p.out, b * p.out.batch), z);
  }
}

}  // namespace de
