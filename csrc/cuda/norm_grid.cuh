// How a group norm is divided among blocks. Sizes decide, never addresses, strides of other samples or
// their number: a sample gives the same bits in any batch and any layout of its neighbours.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "group_norm.cuh"

namespace de {

// Those that have a value for each pixel.
template <class Holds>
bool all_images(const GroupNormParams& p, Holds holds) {
  for (const View* v : {&p.x, &p.out, &p.residual, &p.summed}) {
    const bool per_channel = v == &p.residual && v->pixel == 0;
    if (v->data && !per_channel && !holds(*v)) return false;
  }
  return true;
}

inline void check_params(const GroupNormParams& p) {
  if (p.groups < 1 || p.channels % p.groups)
    throw std::invalid_argument("group_norm: " + std::to_string(p.groups) +
                                " groups do not divide " + std::to_string(p.channels) +
                                " channels");
  if (p.batch < 1 || p.channels < 1 || p.pixels < 1 || !p.x.data || !p.out.data)
    throw std::invalid_argument("group_norm of no elements");
  for (const View* v : {&p.x, &p.out, &p.residual, &p.summed, &p.weight, &p.bias, &p.scale, &p.shift})
    if (v->data && v->dtype != F32 && v->dtype != BF16 && v->dtype != F16)
      throw std::invalid_argument("group_norm takes float32, bfloat16 and float16");
}

inline bool channels_last(const GroupNormParams& p) {
  const bool pixels = all_images(p, [](const View& v) { return v.pixel == 1; });
  const bool channels = all_images(p, [](const View& v) { return v.channel == 1; });
  if (p.pixels > 1 && pixels) return false;
  if (channels || p.channels == 1) return true;
  if (p.pixels == 1) return false;
  throw std::invalid_argument(
      "group_norm needs images that are all contiguous in their pixels or all in their channels");
}

// The fewest groups whose channels of a pixel fill `wanted` elements; one where none do.
inline int32_t bundle_of(const GroupNormParams& p, int64_t width, int64_t wanted) {
  const int64_t size = p.channels / p.groups;
  for (int32_t d = 1; d <= std::min(p.groups, BUNDLE); ++d)
    if (p.groups % d == 0 && d * size >= wanted)
      return d * size / width <= NORM_THREADS ? d : 1;
  return 1;
}

inline NormGrid norm_grid(const GroupNormParams& p) {
  check_params(p);
  NormGrid g{};
  const int64_t size = p.channels / p.groups;
  g.last = channels_last(p);
  const int64_t row = g.last ? size : p.pixels;
  g.width = row % 8 == 0 ? 8 : row % 4 == 0 ? 4 : row % 2 == 0 ? 2 : 1;
  g.wide = all_images(p, [&](const View& v) {
    const int64_t bytes = std::min(16, g.width * bytes_of(v.dtype));
    const int64_t rows = g.last ? v.pixel : v.channel;
    return reinterpret_cast<uintptr_t>(v.data) % bytes == 0 && v.batch % g.width == 0 &&
           rows % g.width == 0;
  });
  g.bundle = 1;
  if (g.last) {
    g.bundle = bundle_of(p, g.width, 32);
    // Half of that makes full sectors still, and may let a block keep its groups.
    const int32_t fewer = bundle_of(p, g.width, 16);
    if (g.bundle * size * p.pixels > KEPT && fewer * size * p.pixels <= KEPT) g.bundle = fewer;
  }
  g.inner = g.last ? g.bundle * size / g.width : p.pixels / g.width;
  g.accesses = (g.last ? p.pixels : size) * g.inner;
  g.threads = g.bundle == 1 ? NORM_THREADS : (int32_t)(NORM_THREADS / g.inner * g.inner);
  const int64_t elements = g.accesses * g.width, unit = g.bundle == 1 ? 1 : g.inner;
  const int64_t wanted = elements <= KEPT ? 1 : (elements + PART - 1) / PART;
  g.per = (g.accesses / unit + wanted - 1) / wanted * unit;
  g.parts = (int32_t)((g.accesses + g.per - 1) / g.per);
  if (p.batch * (p.groups / g.bundle) * g.parts > INT32_MAX)
    throw std::invalid_argument("a batch of " + std::to_string(p.batch) +
                                " samples is too large for one launch; split it");
  return g;
}

inline uint32_t blocks_of(const GroupNormParams& p, const NormGrid& g) {
  return (uint32_t)(p.batch * (p.groups / g.bundle) * g.parts);
}

// Bytes of shared memory for what a block keeps.
inline size_t kept_of(const NormGrid& g) {
  return (size_t)((g.per + g.threads - 1) / g.threads) * g.width * NORM_THREADS * sizeof(float);
}

inline int64_t workspace_of(const GroupNormParams& p, const NormGrid& g) {
  return g.parts == 1 ? 0 : p.batch * p.groups * g.parts * (int64_t)sizeof(Moments);
}

// Calls where.small<WIDTH>(p, grid), or where.moments and where.apply.
template <int WIDTH_, class Where>
void choose_path(const Where& where, const GroupNormParams& p, const NormGrid& g) {
  if (g.parts == 1) return where.template small<WIDTH_>(p, g);
  if (!p.workspace)
    throw std::invalid_argument("group_norm of images of this size needs a workspace of " +
                                std::to_string(workspace_of(p, g)) + " bytes");
  where.template moments<WIDTH_>(p, g);
  where.template apply<WIDTH_>(p, g);
}

template <class Where>
void choose(const Where& where, const GroupNormParams& p) {
  const NormGrid g = norm_grid(p);
  switch (g.width) {
    case 8: return choose_path<8>(where, p, g);
    case 4: return choose_path<4>(where, p, g);
    case 2: return choose_path<2>(where, p, g);
    default: return choose_path<1>(where, p, g);
  }
}

}  // namespace de
