// Group norm by blocks (diffusion_engine/ops/group_norm.py). Host and device: the tests run the
// same code on a CPU.
//
// A block has some neighbouring groups of a sample: one, or where channels are contiguous as many
// as fill a stretch of memory. It takes WIDTH elements at a time from rows of `inner` of them: the
// pixels of a channel, or the block's channels of a pixel. Where a group is small one block keeps
// all of it in shared memory and reads x once. Else blocks leave the moments of parts, and a second
// launch merges them. Means are kept as a pivot and the small distance from it, squares are of
// deviations, and every sum has a fixed order that the sizes of one sample decide.
#pragma once
#include "layers.h"
#include "norm_access.cuh"
#include "warp.cuh"

namespace de {

constexpr int NORM_THREADS = 256, NORM_WARPS = NORM_THREADS / WARP;
constexpr int KEPT = 16384;   // elements that a block keeps in shared memory: 64 KiB
constexpr int PART = 8192;    // elements of a part of a larger group's block
constexpr int TABLE = 1024;   // channels of a block whose coefficients are made once
constexpr int BUNDLE = 32;    // groups of a block at most

struct NormGrid {
  int32_t last;      // channels are the contiguous axis
  int32_t width;     // elements of an access
  int32_t wide;      // whether memory allows to move them at once
  int32_t bundle;    // groups of a block
  int32_t parts;     // blocks that share them
  int32_t threads;   // that have work: a multiple of inner where there are several groups
  int64_t inner;     // accesses in a row
  int64_t accesses;  // of a block's groups in all parts
  int64_t per;       // of a part
};

// Of the elements of one group or of a part: the mean is pivot + mean; square sums the squared
// deviations.
struct Moments {
  float pivot, mean, square;
};

struct NormShared {
  float each[2][NORM_THREADS], sum[2][BUNDLE];
  Moments moments[BUNDLE];
  float factor[TABLE], offset[TABLE];
};

struct NormBlock {
  int64_t b, group, part;  // the first group
  int64_t begin, end;      // accesses
};

// Where an access lies; the channel counts from the block's first.
struct Spot {
  int64_t channel, pixel;
};

DE_HD NormBlock norm_block(const GroupNormParams& p, const NormGrid& g, int64_t turn) {
  NormBlock at;
  int64_t rest, bundle;
  divide(turn, g.parts, rest, at.part);
  divide(rest, p.groups / g.bundle, at.b, bundle);
  at.group = bundle * g.bundle;
  at.begin = at.part * g.per;
  at.end = at.begin + g.per < g.accesses ? at.begin + g.per : g.accesses;
  return at;
}

DE_HD int64_t group_size(const GroupNormParams& p) { return p.channels / p.groups; }

template <int WIDTH_>
DE_HD Spot spot_of(const NormGrid& g, int64_t access) {
  int64_t row, column;
  divide(access, g.inner, row, column);
  return g.last ? Spot{column * WIDTH_, row} : Spot{row, column * WIDTH_};
}

// Which of the block's groups a thread works for: with several, always the same one.
template <int WIDTH_>
DE_HD int group_of(const GroupNormParams& p, const NormGrid& g, int thread) {
  return g.bundle == 1 ? 0 : thread % (int)g.inner * WIDTH_ / (int)group_size(p);
}

// x + residual of one access.
template <int WIDTH_>
DE_HD void load_sum(const GroupNormParams& p, const NormGrid& g, const NormBlock& at,
                    const Spot& spot, float h[WIDTH_]) {
  const int64_t channel = at.group * group_size(p) + spot.channel;
  load_access<WIDTH_>(p.x, offset_of(p.x, at.b, channel, spot.pixel), g.wide, h);
  const View& r = p.residual;
  if (!r.data) return;
  float more[WIDTH_];
  if (r.pixel != 0) {
    load_access<WIDTH_>(r, offset_of(r, at.b, channel, spot.pixel), g.wide, more);
  } else {
#pragma unroll
    for (int i = 0; i < WIDTH_; ++i)
      more[i] = load_one(r, offset_of(r, at.b, channel + (g.last ? i : 0), 0));
  }
#pragma unroll
  for (int i = 0; i < WIDTH_; ++i) h[i] += more[i];
}

// Sums N numbers over the threads of each group; every thread gets those of its own.
template <int N, int WIDTH_>
DE_HD void sum_of_group(const GroupNormParams& p, const NormGrid& g, NormShared& s, int thread,
                        float x[N]) {
#pragma unroll
  for (int n = 0; n < N; ++n) s.each[n][thread] = x[n];
  barrier();
  // Member m of group j is thread m / share of column j * share + m % share.
  const int columns = g.bundle == 1 ? 1 : (int)g.inner, share = columns / g.bundle;
  const int members = g.threads / g.bundle, lane = thread % WARP;
  for (int j = thread / WARP; j < g.bundle; j += NORM_WARPS) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      float sum = 0.0f;
      for (int m = lane; m < members; m += WARP)
        sum += s.each[n][m / share * columns + j * share + m % share];
      sum = sum_of_warp(sum);
      if (lane == 0) s.sum[n][j] = sum;
    }
  }
  barrier();
  const int mine = thread < g.threads ? group_of<WIDTH_>(p, g, thread) : 0;
#pragma unroll
  for (int n = 0; n < N; ++n) x[n] = s.sum[n][mine];
}

DE_HD float elements_of(const NormGrid& g, int64_t begin, int64_t end) {
  return (float)((end - begin) / g.bundle * g.width);
}

// Reads a block's part into `kept`, where each thread finds its own again, and leaves its moments in
// shared memory.
template <int WIDTH_>
DE_HD void moments_of_block(const GroupNormParams& p, const NormGrid& g, const NormBlock& at,
                            NormShared& s, float* kept, int thread) {
  const float count = elements_of(g, at.begin, at.end);
  const int64_t first = thread < g.threads ? at.begin + thread : at.end;
  float sum[1] = {0.0f};
  float* mine = kept + thread;
  for (int64_t i = first; i < at.end; i += g.threads, mine += WIDTH_ * NORM_THREADS) {
    float h[WIDTH_];
    load_sum<WIDTH_>(p, g, at, spot_of<WIDTH_>(g, i), h);
#pragma unroll
    for (int k = 0; k < WIDTH_; ++k) {
      mine[k * NORM_THREADS] = h[k];
      sum[0] += h[k];
    }
  }
  sum_of_group<1, WIDTH_>(p, g, s, thread, sum);
  const float pivot = sum[0] / count;

  float sums[2] = {0.0f, 0.0f};  // of deviations from the pivot and of their squares
  mine = kept + thread;
  for (int64_t i = first; i < at.end; i += g.threads, mine += WIDTH_ * NORM_THREADS) {
#pragma unroll
    for (int k = 0; k < WIDTH_; ++k) {
      const float d = mine[k * NORM_THREADS] - pivot;
      sums[0] += d;
      sums[1] = fmaf(d, d, sums[1]);
    }
  }
  sum_of_group<2, WIDTH_>(p, g, s, thread, sums);
  const float mean = sums[0] / count;
  const int group = thread < g.threads ? group_of<WIDTH_>(p, g, thread) : 0;
  if (thread < g.threads) s.moments[group] = Moments{pivot, mean, fmaf(-sums[0], mean, sums[1])};
  barrier();
}

// The moments of a whole group from those of its parts, by one warp.
DE_HD Moments merge(const NormGrid& g, const Moments* parts, int lane) {
  const float pivot = parts[0].pivot;
  const auto count = [&](int i) {
    const int64_t begin = i * g.per, end = begin + g.per;
    return elements_of(g, begin, end < g.accesses ? end : g.accesses);
  };
  const auto distance = [&](int i) { return (parts[i].pivot - pivot) + parts[i].mean; };
  float sum = 0.0f, square = 0.0f;
  for (int i = lane; i < g.parts; i += WARP) sum = fmaf(count(i), distance(i), sum);
  const float mean = sum_of_warp(sum) / elements_of(g, 0, g.accesses);
  for (int i = lane; i < g.parts; i += WARP) {
    const float d = distance(i) - mean;
    square += fmaf(count(i) * d, d, parts[i].square);
  }
  return Moments{pivot, mean, sum_of_warp(square)};
}

// out = silu(((h - pivot) - mean) factor + offset)
struct Affine {
  float pivot, mean, factor, offset;
};

DE_HD Affine affine_of(const GroupNormParams& p, const NormGrid& g, const NormBlock& at,
                       const Moments* moments, int64_t channel) {
  const int64_t size = group_size(p), c = at.group * size + channel;
  const Moments m = moments[g.bundle == 1 ? 0 : (int)(channel / size)];
  // In double and rounded once: every element of the channel inherits these errors.
  double factor = 1.0 / sqrt((double)m.square / elements_of(g, 0, g.accesses) + (double)p.eps);
  double offset = 0.0;
  if (p.weight.data) factor *= load_one(p.weight, c * p.weight.channel);
  if (p.bias.data) offset = load_one(p.bias, c * p.bias.channel);
  if (p.scale.data) {
    const double scale = 1.0 + load_one(p.scale, offset_of(p.scale, at.b, c, 0));
    factor *= scale;
    offset *= scale;
  }
  if (p.shift.data) offset += load_one(p.shift, offset_of(p.shift, at.b, c, 0));
  return Affine{m.pivot, m.mean, (float)factor, (float)offset};
}

DE_HD void fill_table(const GroupNormParams& p, const NormGrid& g, const NormBlock& at,
                      NormShared& s, int thread) {
  const int64_t channels = g.bundle * group_size(p);
  for (int64_t c = thread; c < channels && channels <= TABLE; c += NORM_THREADS) {
    const Affine a = affine_of(p, g, at, s.moments, c);
    s.factor[c] = a.factor;
    s.offset[c] = a.offset;
  }
  barrier();
}

DE_HD float silu_of(float y) { return divide_fast(y, 1.0f + exp2_fast(y * -1.44269504088896341f)); }

// Writes what comes of one access, its group's moments being m.
template <int WIDTH_>
DE_HD void write_access(const GroupNormParams& p, const NormGrid& g, const NormBlock& at,
                        const NormShared& s, const Moments& m, const Spot& spot,
                        const float h[WIDTH_]) {
  const bool table = g.bundle * group_size(p) <= TABLE;
  const int64_t channel = at.group * group_size(p) + spot.channel;
  if (p.summed.data)
    store_access<WIDTH_>(p.summed, offset_of(p.summed, at.b, channel, spot.pixel), g.wide, h);
  float factor = 0.0f, offset = 0.0f, y[WIDTH_];
#pragma unroll
  for (int i = 0; i < WIDTH_; ++i) {
    if (i == 0 || g.last) {
      const int64_t c = spot.channel + i;
      const Affine a = table ? Affine{0.0f, 0.0f, s.factor[c], s.offset[c]}
                             : affine_of(p, g, at, s.moments, c);
      factor = a.factor;
      offset = a.offset;
    }
    y[i] = fmaf((h[i] - m.pivot) - m.mean, factor, offset);
    if (p.silu) y[i] = silu_of(y[i]);
  }
  store_access<WIDTH_>(p.out, offset_of(p.out, at.b, channel, spot.pixel), g.wide, y);
}

// One launch for small groups: `kept` has the block's elements.
template <int WIDTH_>
DE_HD void norm_small(const GroupNormParams& p, const NormGrid& g, int64_t turn, int thread,
                      NormShared& s, float* kept) {
  const NormBlock at = norm_block(p, g, turn);
  moments_of_block<WIDTH_>(p, g, at, s, kept, thread);
  fill_table(p, g, at, s, thread);
  if (thread >= g.threads) return;
  const Moments m = s.moments[group_of<WIDTH_>(p, g, thread)];
  const float* mine = kept + thread;
  for (int64_t i = at.begin + thread; i < at.end; i += g.threads, mine += WIDTH_ * NORM_THREADS) {
    float h[WIDTH_];
#pragma unroll
    for (int k = 0; k < WIDTH_; ++k) h[k] = mine[k * NORM_THREADS];
    write_access<WIDTH_>(p, g, at, s, m, spot_of<WIDTH_>(g, i), h);
  }
}

DE_HD Moments* parts_of(const GroupNormParams& p, const NormGrid& g, const NormBlock& at, int j) {
  return static_cast<Moments*>(p.workspace) + (at.b * p.groups + at.group + j) * g.parts;
}

// The first of two launches for large groups.
template <int WIDTH_>
DE_HD void norm_moments(const GroupNormParams& p, const NormGrid& g, int64_t turn, int thread,
                        NormShared& s, float* kept) {
  const NormBlock at = norm_block(p, g, turn);
  moments_of_block<WIDTH_>(p, g, at, s, kept, thread);
  if (thread < g.bundle) parts_of(p, g, at, thread)[at.part] = s.moments[thread];
}

// The second: reads x again.
template <int WIDTH_>
DE_HD void norm_apply(const GroupNormParams& p, const NormGrid& g, int64_t turn, int thread,
                      NormShared& s) {
  const NormBlock at = norm_block(p, g, turn);
  for (int j = thread / WARP; j < g.bundle; j += NORM_WARPS) {
    const Moments m = merge(g, parts_of(p, g, at, j), thread % WARP);
    if (thread % WARP == 0) s.moments[j] = m;
  }
  barrier();
  fill_table(p, g, at, s, thread);
  if (thread >= g.threads) return;
  const Moments m = s.moments[group_of<WIDTH_>(p, g, thread)];
  for (int64_t i = at.begin + thread; i < at.end; i += g.threads) {
    const Spot spot = spot_of<WIDTH_>(g, i);
    float h[WIDTH_];
    load_sum<WIDTH_>(p, g, at, spot, h);
    write_access<WIDTH_>(p, g, at, s, m, spot, h);
  }
}

}  // namespace de
