// Moments of rows of channels, and what is made of them. Included once for every instruction set.
#pragma once
#include <algorithm>
#include <cmath>

#include "activation.h"
#include "lanes.h"
#include "norm_groups.h"

namespace de {
namespace {

// Means and squared deviations of U vectors of columns over at most TILE rows, added to those of `before`
// rows. Deviations are from the mean of the first rows: at most eight times the whole's squared deviations
// are ever subtracted again, an eighth of them on average, however large the mean. Means are kept as
// distances from a value of the column, so that their rounding is one of the deviations' size.
template <int U, bool WHOLE>
DE_INLINE void add_tile(const float* x, int64_t step, int64_t rows, int64_t before, const NormMoments& to,
                        int64_t c, Lanes<WHOLE> lanes) {
  constexpr int64_t FIRST = 8;
  Float center[U] = {}, total[U] = {}, squares[U] = {};
  const int64_t first = std::min(rows, FIRST);
  for (int64_t r = 0; r < first; ++r)
    for (int u = 0; u < U; ++u) center[u] += lanes.load(x + r * step + c + u * W);
  for (int u = 0; u < U; ++u) center[u] *= 1.0f / (float)first;
  for (int64_t r = 0; r < rows; ++r)
    for (int u = 0; u < U; ++u) {
      const Float d = lanes.load(x + r * step + c + u * W) - center[u];
      total[u] += d;
      squares[u] = multiply_add(d, d, squares[u]);
    }
  const float one = 1.0f / (float)rows;
  const float share = (float)rows / (float)(before + rows), cross = (float)before * share;
  for (int u = 0; u < U; ++u) {
    const int64_t at = c + u * W;
    const Float off = total[u] * one, m2 = squares[u] - off * total[u];
    const Float mean = (center[u] - lanes.load(to.pivot + at)) + off;
    const Float old = lanes.load(to.mean + at), delta = mean - old;
    lanes.store(to.mean + at, old + delta * share);
    lanes.store(to.m2 + at, lanes.load(to.m2 + at) + (at_least(m2, Float{}) + delta * delta * cross));
  }
}

// The moments of rows [row, last) of a slice; the pivots are given.
inline void block_moments(const NormGroupsParams& p, const NormSlice& s, int64_t row, int64_t last,
                          const NormMoments& to) {
  const float* x = p.x.data + s.b * p.x.batch + s.first;
  std::fill_n(to.mean, s.width, 0.0f), std::fill_n(to.m2, s.width, 0.0f);
  for (int64_t r = row; r < last; r += NormBlocks::TILE) {
    const int64_t rows = std::min(NormBlocks::TILE, last - r);
    int64_t c = 0;
    for (; c + 4 * W <= s.width; c += 4 * W)
      add_tile<4>(x + r * p.x.row, p.x.row, rows, r - row, to, c, Lanes<true>{});
    each_vector(s.width - c, [&](int64_t i, auto lanes) {
      add_tile<1>(x + r * p.x.row, p.x.row, rows, r - row, to, c + i, lanes);
    });
  }
}

// Those of `rows` further rows, after `before`.
inline void merge_moments(const NormMoments& to, const NormMoments& more, int64_t width, int64_t before,
                          int64_t rows) {
  const float share = (float)rows / (float)(before + rows), cross = (float)before * share;
  each_vector(width, [&](int64_t c, auto lanes) {
    const Float old = lanes.load(to.mean + c), delta = lanes.load(more.mean + c) - old;
    lanes.store(to.mean + c, old + delta * share);
    lanes.store(to.m2 + c, lanes.load(to.m2 + c) + (lanes.load(more.m2 + c) + delta * delta * cross));
  });
}

// Of a group: the mean, and one over the deviation.
struct GroupMoments {
  double mean, rstd;
};

// All means, then all deviations, then all roots: each waits long for its own sums, groups do not for each
// other's.
inline void merge_groups(const NormGroupsParams& p, const NormMoments& of, int64_t size, int64_t count,
                         GroupMoments* groups) {
  for (int64_t g = 0; g < count; ++g) {
    double total = 0.0;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) total += (double)of.pivot[c] + of.mean[c];
    groups[g].mean = total / (double)size;
  }
  for (int64_t g = 0; g < count; ++g) {
    double within = 0.0, between = 0.0;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) {
      const double d = ((double)of.pivot[c] + of.mean[c]) - groups[g].mean;
      within += of.m2[c], between += d * d;
    }
    groups[g].rstd = within + between * (double)p.rows;
  }
  const double one = 1.0 / (double)(p.rows * size);
  for (int64_t g = 0; g < count; ++g) groups[g].rstd = 1.0 / std::sqrt(groups[g].rstd * one + (double)p.eps);
}

// What becomes of a channel: (x - center) factor + offset. Each is rounded once, and what the center
// loses the offset makes good: every element of the channel inherits their errors. Takes the moments'
// place: center, factor, offset.
inline void coefficients(const NormGroupsParams& p, const NormSlice& s, const NormMoments& of,
                         GroupMoments* groups) {
  const int64_t size = p.channels / p.groups, count = s.width / size;
  const float* scale = p.scale ? p.scale + s.b * p.scale_batch : nullptr;
  const float* shift = p.shift ? p.shift + s.b * p.shift_batch : nullptr;
  merge_groups(p, of, size, count, groups);
  for (int64_t g = 0; g < count; ++g) {
    const float center = (float)groups[g].mean;
    const double rstd = groups[g].rstd, lost = groups[g].mean - center;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) {
      const int64_t i = s.first + c;
      const double more = scale ? (double)p.unit + scale[i] : 1.0;
      const double gain = rstd * (p.weight ? p.weight[i] : 1.0f) * more;
      const double add = (p.bias ? p.bias[i] * more : 0.0) + (shift ? shift[i] : 0.0f);
      of.pivot[c] = center;
      of.mean[c] = (float)gain;
      of.m2[c] = (float)(add - lost * gain);
    }
  }
}

template <int32_t activation>
void normalize_slice(const NormGroupsParams& p, const NormSlice& s, int64_t row, int64_t last,
                     const NormMoments& of) {
  for (int64_t r = row; r < last; ++r) {
    const float* x = p.x.data + s.b * p.x.batch + r * p.x.row + s.first;
    float* out = p.out.data + s.b * p.out.batch + r * p.out.row + s.first;
    each_vector(s.width, [&](int64_t c, auto lanes) {
      const Float y = multiply_add(lanes.load(x + c) - lanes.load(of.pivot + c), lanes.load(of.mean + c),
                                   lanes.load(of.m2 + c));
      lanes.store(out + c, activate(y, activation));
    });
  }
}

// Rows [row, last) from the slice's moments, in whose place the coefficients come.
inline void finish_slice(const NormGroupsParams& p, const NormSlice& s, int64_t row, int64_t last,
                         const NormMoments& of, GroupMoments* groups) {
  coefficients(p, s, of, groups);
  with_activation(p.activation, [&](auto kind) { normalize_slice<kind>(p, s, row, last, of); });
}

// The beginning of scratch as that of the groups of `width` channels; the rest follows.
inline GroupMoments* take_groups(const NormGroupsParams& p, int64_t width, float*& scratch) {
  static_assert(sizeof(GroupMoments) == NormBlocks::GROUP_FLOATS * sizeof(float));
  GroupMoments* groups = reinterpret_cast<GroupMoments*>(scratch);
  scratch += NormBlocks::GROUP_FLOATS * (width * p.groups / p.channels);
  return groups;
}

// All of a slice.
inline void norm_slice(const NormGroupsParams& p, const NormSlice& s, float* scratch) {
  const NormBlocks blocks(p.rows);
  GroupMoments* groups = take_groups(p, s.width, scratch);
  const NormMoments all(scratch, s.width);
  NormMoments part = all;
  part.mean = scratch + 3 * s.width, part.m2 = scratch + 4 * s.width;
  std::copy_n(p.x.data + s.b * p.x.batch + s.first, s.width, all.pivot);
  block_moments(p, s, 0, std::min(blocks.rows, p.rows), all);
  for (int64_t row = blocks.rows; row < p.rows; row += blocks.rows) {
    const int64_t rows = std::min(blocks.rows, p.rows - row);
    block_moments(p, s, row, row + rows, part);
    merge_moments(all, part, s.width, row, rows);
  }
  finish_slice(p, s, 0, p.rows, all, groups);
}

// Block `block` of sample b: moments [3][channels].
inline void norm_moments(const NormGroupsParams& p, int64_t b, int64_t block, float* moments) {
  const NormBlocks blocks(p.rows);
  const NormMoments to(moments, p.channels);
  std::copy_n(p.x.data + b * p.x.batch, p.channels, to.pivot);
  const int64_t row = block * blocks.rows;
  block_moments(p, {b, 0, p.channels}, row, std::min(row + blocks.rows, p.rows), to);
}

// Rows [row, last) of sample b from the moments [block][3][channels].
inline void norm_from_moments(const NormGroupsParams& p, int64_t b, int64_t row, int64_t last,
                              float* moments, float* scratch) {
  const NormBlocks blocks(p.rows);
  GroupMoments* groups = take_groups(p, p.channels, scratch);
  const NormMoments all(scratch, p.channels);
  std::copy_n(moments, 3 * p.channels, scratch);
  for (int64_t i = 1; i < blocks.count; ++i) {
    const int64_t before = i * blocks.rows, rows = std::min(blocks.rows, p.rows - before);
    merge_moments(all, NormMoments(moments + i * 3 * p.channels, p.channels), p.channels, before, rows);
  }
  finish_slice(p, {b, 0, p.channels}, row, last, all, groups);
}

}  // namespace
}  // namespace de
