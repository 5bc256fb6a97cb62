// The choices that a launch makes from its parameters alone; free of the CUDA runtime, so that the
// emulation on a CPU makes the same ones.
#pragma once
#include <algorithm>
#include <stdexcept>
#include <string>

#include "access.cuh"

namespace de {

// Enough blocks to fill the GPU and no more: a block copies its row first, so a thread with several
// groups shares that cost among them. Every thread then has the same number, give or take one.
inline Grid grid_of(int64_t batch, int64_t channels, int64_t pixels, bool interleave,
                    int multiprocessors) {
  constexpr int64_t RESIDENT = 2048 / THREADS;  // blocks that one multiprocessor can hold
  const int64_t groups = (channels * pixels + WIDTH - 1) / WIDTH;
  const int64_t wanted = (groups + THREADS - 1) / THREADS;
  const int64_t most = std::max<int64_t>(1, RESIDENT * multiprocessors / batch);
  const int64_t turns = std::max<int64_t>(1, (wanted + most - 1) / most);
  const int64_t blocks = std::max<int64_t>(1, (wanted + turns - 1) / turns);
  if (blocks * batch > INT32_MAX)
    throw std::invalid_argument("a batch of " + std::to_string(batch) +
                                " samples is too large for one launch; split it");
  return Grid{channels, pixels, groups, (int32_t)blocks, interleave && pixels % WIDTH == 0};
}

// Whether every group of a tensor is WIDTH adjacent elements at a multiple of their total size,
// also after `step` elements, the distance of its channel blocks or draws.
inline bool is_wide(const View& v, int64_t channels, int64_t step = 0) {
  if (!v.data) return true;
  return v.pixel == 1 && reinterpret_cast<uintptr_t>(v.data) % (WIDTH * bytes_of(v.dtype)) == 0 &&
         v.batch % WIDTH == 0 && (channels == 1 || v.channel % WIDTH == 0) && step % WIDTH == 0;
}

inline bool all_wide(const StepParams& p) {
  const auto plain = [&](const View& v) { return is_wide(v, p.channels); };
  const auto blocked = [&](const View& v) { return is_wide(v, p.channels, p.block * v.channel); };
  return p.pixels % WIDTH == 0 && std::all_of(p.slot, p.slot + p.slots, plain) &&
         std::all_of(p.out, p.out + p.tensors, blocked) && blocked(p.net_in) && plain(p.mask) &&
         plain(p.known) && plain(p.denoised) && is_wide(p.noise, p.channels, p.noise_draw);
}

inline bool all_wide(const NoiseParams& p) {
  return p.pixels % WIDTH == 0 && is_wide(p.out, p.channels);
}

inline bool all_wide(const BrownianParams& p) {
  return p.pixels % WIDTH == 0 && is_wide(p.out, p.channels, p.out_draw);
}

// Channels last: the stride of a pixel is the larger one.
inline bool interleaves(const View& v, int64_t channels) {
  return channels > 1 && v.pixel > v.channel;
}

inline Grid grid_of(const NoiseParams& p, int multiprocessors) {
  return grid_of(p.batch, p.channels, p.pixels, interleaves(p.out, p.channels), multiprocessors);
}

inline Grid grid_of(const BrownianParams& p, int multiprocessors) {
  return grid_of(p.batch * p.draws, p.channels, p.pixels, interleaves(p.out, p.channels),
                 multiprocessors);
}

// Calls where.run<K, VEC, EXTRAS>(p, grid) for the kernel that takes these parameters.
template <int K, class Where>
void choose(const Where& where, const StepParams& p, const Grid& g, bool wide) {
  if (!wide) return where.template run<K, false, true>(p, g);
  if (p.normals > 0 || p.mask.data) return where.template run<K, true, true>(p, g);
  where.template run<K, true, false>(p, g);
}

template <class Where>
void choose(const Where& where, const StepParams& p, int multiprocessors) {
  if (p.batch == 0) return;
  const bool wide = all_wide(p), interleave = !wide && interleaves(p.slot[0], p.channels);
  const Grid g = grid_of(p.batch, p.channels, p.pixels, interleave, multiprocessors);
  if (g.blocks > 1 && !p.ticket)
    throw std::invalid_argument(
        "step needs `ticket`, a zeroed int32 for each sample, where a sample takes several blocks");
  switch (p.slots) {
    case 1: return choose<1>(where, p, g, wide);
    case 2: return choose<2>(where, p, g, wide);
    case 3: return choose<3>(where, p, g, wide);
    case 4: return choose<4>(where, p, g, wide);
    case 5: return choose<5>(where, p, g, wide);
  }
  throw std::invalid_argument("step takes 1 to 5 slots, got " + std::to_string(p.slots));
}

}  // namespace de
