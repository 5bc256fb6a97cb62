// The choices of a launch of group_norm, from its parameters alone.
#pragma once
#include <stdexcept>
#include <string>

#include "group_norm_block.cuh"

namespace de {

inline bool contiguous_in(const GroupNormParams& p, int64_t View::*axis) {
  for (const View* v : {&p.x, &p.out, &p.summed, &p.residual})
    if (v->data && !(v == &p.residual && v->pixel == 0 && p.pixels > 1) && v->*axis != 1) return false;
  return true;
}

// Whether each four elements from a multiple of four on can be read and written at once.
inline bool wide(const GroupNormParams& p, const NormGrid& g) {
  if ((g.by_pixel ? g.size : p.pixels) % WIDTH) return false;
  for (const View* v : {&p.x, &p.out, &p.summed, &p.residual}) {
    if (!v->data || (v == &p.residual && v->pixel == 0 && p.pixels > 1)) continue;
    const int64_t other = g.by_pixel ? v->pixel : v->channel;
    if (reinterpret_cast<uintptr_t>(v->data) % (WIDTH * bytes_of(v->dtype)) || v->batch % WIDTH || other % WIDTH)
      return false;
  }
  return true;
}

inline NormGrid norm_grid(const GroupNormParams& p) {
  if (p.groups < 1 || p.channels % p.groups)
    throw std::invalid_argument("group_norm: " + std::to_string(p.groups) + " groups do not divide " +
                                std::to_string(p.channels) + " channels");
  NormGrid g{};
  g.size = p.channels / p.groups;
  if (g.size > MOST_CHANNELS)
    throw std::invalid_argument("group_norm: groups of " + std::to_string(g.size) +
                                " channels; the CUDA kernel takes at most " + std::to_string(MOST_CHANNELS) +
                                ", backend='triton' any number");
  g.elements = g.size * p.pixels;
  g.by_pixel = p.pixels == 1 ? contiguous_in(p, &View::channel) : !contiguous_in(p, &View::pixel);
  g.wide = wide(p, g);
  const int64_t parts = (g.elements + LARGEST - 1) / LARGEST;
  if (parts * p.batch * p.groups > INT32_MAX)
    throw std::invalid_argument("group_norm: a batch of " + std::to_string(p.batch) +
                                " is too large for one launch; split it");
  g.parts = (int32_t)parts;
  return g;
}

// Calls run.template run<N, MOMENTS, APPLY>(p, grid) for each launch.
template <class Run>
void launch_norm(const Run& run, const GroupNormParams& p) {
  const NormGrid g = norm_grid(p);
  if (p.batch == 0) return;
  if (g.parts > 1 && !p.workspace) throw std::invalid_argument("group_norm: a large map needs `workspace`");
  const auto with = [&](auto n) {
    constexpr int N = decltype(n)::value;
    if (g.parts == 1) return run.template run<N, true, true>(p, g);
    run.template run<N, true, false>(p, g);
    run.template run<N, false, true>(p, g);
  };
  if (g.wide)
    with(std::integral_constant<int, WIDTH>{});
  else
    with(std::integral_constant<int, 1>{});
}

inline int64_t norm_workspace(const GroupNormParams& p) {
  const NormGrid g = norm_grid(p);
  return g.parts == 1 ? 0 : p.batch * p.groups * g.parts * (int64_t)sizeof(Part);
}

}  // namespace de
