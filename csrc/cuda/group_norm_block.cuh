// group_norm of a group, or of a part of one, by a block of threads; host and device.
//
// A part is LARGEST elements in the order of memory: pixels of a channel, or channels of a pixel. Each
// thread holds its share in registers while the block finds their mean and squared deviations. A
// group of one part is done then; the parts of a larger one are merged by a second launch.
#pragma once
#include "access.cuh"
#include "layers.h"
#include "team.cuh"

namespace de {

constexpr int TEAM = 256;            // threads of a block
constexpr int HELD = 32;             // elements of a thread
constexpr int LARGEST = TEAM * HELD;
constexpr int MERGERS = 16;          // threads that merge first, each its run of the others' moments
constexpr int MOST_CHANNELS = 4096;  // of a group: their coefficients lie in shared memory

struct Part {
  float count, mean, m2;
};

// Chan, Golub and LeVeque 1979, equation 2.1.
DE_HD void merge(Part& a, const Part& b) {
  const float total = a.count + b.count;
  if (b.count == 0.0f) return;
  const float delta = b.mean - a.mean, share = b.count / total;
  a.m2 += b.m2 + delta * delta * a.count * share;
  a.mean += delta * share;
  a.count = total;
}

// What the blocks share: where a group's parts lie in the workspace, and how elements are counted.
struct NormGrid {
  int64_t size, elements;  // channels of a group, elements of a group
  int32_t parts;
  bool by_pixel, wide;  // channels are contiguous; four elements can be read at once
};

struct NormShared {
  Part each[TEAM], some[MERGERS], all;
};

// Means are distances from the group's first value, so that their rounding is one of the deviations'
// size and not of the values'.
struct NormThread {
  float h[HELD], first;
};

// The elements [first, first + width) of the group: their first channel and pixel.
struct NormPlace {
  int64_t channel, pixel;
};

DE_HD NormPlace norm_place(const GroupNormParams& p, const NormGrid& g, int64_t element) {
  NormPlace at;
  if (g.by_pixel)
    divide(element, g.size, at.pixel, at.channel);
  else
    divide(element, p.pixels, at.channel, at.pixel);
  return at;
}

DE_HD char* norm_address(const View& v, int64_t b, int64_t channel, int64_t pixel) {
  return address(v, b * v.batch + channel * v.channel + pixel * v.pixel);
}

DE_HD float norm_value(const View& v, int64_t b, int64_t channel, int64_t pixel, float absent) {
  if (!v.data) return absent;
  const char* at = norm_address(v, b, channel, pixel);
  return v.dtype == F32 ? *reinterpret_cast<const float*>(at)
                        : widen(*reinterpret_cast<const uint16_t*>(at), v.dtype);
}

template <int N>
DE_HD void norm_read(const View& v, int64_t b, const NormPlace& at, float x[N]) {
  const char* from = norm_address(v, b, at.channel, at.pixel);
  if constexpr (N == WIDTH)
    load_wide(from, v.dtype, x);
  else
    x[0] = v.dtype == F32 ? *reinterpret_cast<const float*>(from)
                          : widen(*reinterpret_cast<const uint16_t*>(from), v.dtype);
}

template <int N>
DE_HD void norm_write(const View& v, int64_t b, const NormPlace& at, const float x[N]) {
  char* to = norm_address(v, b, at.channel, at.pixel);
  if constexpr (N == WIDTH)
    store_wide(to, v.dtype, x);
  else if (v.dtype == F32)
    *reinterpret_cast<float*>(to) = x[0];
  else
    *reinterpret_cast<uint16_t*>(to) = (uint16_t)narrow(x[0], v.dtype);
}

// Calls use(i, place) for each N elements of a thread's share of a part; i is their index in h.
template <int N, class Use>
DE_HD void norm_share(const GroupNormParams& p, const NormGrid& g, int64_t group, int part, int thread, Use use) {
#pragma unroll
  for (int i = 0; i < HELD; i += N) {
    const int64_t element = (int64_t)part * LARGEST + i * TEAM + thread * N;
    if (element >= g.elements) continue;
    NormPlace at = norm_place(p, g, element);
    at.channel += group * g.size;
    use(i, at);
  }
}

// h = x + residual of a thread's share, and its moments.
template <int N>
DE_HD Part norm_load(const GroupNormParams& p, const NormGrid& g, int64_t b, int64_t group, int part, int thread,
                     NormThread& s) {
  Part own{0.0f, 0.0f, 0.0f};
  norm_share<N>(p, g, group, part, thread, [&](int i, const NormPlace& at) {
    norm_read<N>(p.x, b, at, s.h + i);
    if (p.residual.data) {
      float more[N];
      if (p.residual.pixel != 0 || p.pixels == 1) {
        norm_read<N>(p.residual, b, at, more);
      } else {
#pragma unroll
        for (int k = 0; k < N; ++k)
          more[k] = norm_value(p.residual, b, at.channel + (g.by_pixel ? k : 0), 0, 0.0f);
      }
#pragma unroll
      for (int k = 0; k < N; ++k) s.h[i + k] += more[k];
    }
    own.count += N;
  });
  const int64_t channel = group * g.size;
  s.first = norm_value(p.x, b, channel, 0, 0.0f) + norm_value(p.residual, b, channel, 0, 0.0f);
  if (own.count == 0.0f) return own;
#pragma unroll
  for (int i = 0; i < HELD; ++i)
    if (i < own.count) own.mean += s.h[i] - s.first;
  own.mean /= own.count;
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const float distance = (s.h[i] - s.first) - own.mean;
    if (i < own.count) own.m2 = fmaf(distance, distance, own.m2);
  }
  return own;
}

// The moments of `count` parts at from[], in order, to shared.all.
template <class Team>
DE_HD void norm_merge(Team& team, NormShared& shared, const Part* from, int count) {
  const int run = (count + MERGERS - 1) / MERGERS;
  team.each([&](int thread, NormThread&) {
    if (thread >= MERGERS) return;
    Part merged{0.0f, 0.0f, 0.0f};
    for (int i = thread * run; i < count && i < (thread + 1) * run; ++i) merge(merged, from[i]);
    shared.some[thread] = merged;
  });
  team.each([&](int thread, NormThread&) {
    if (thread != 0) return;
    Part merged{0.0f, 0.0f, 0.0f};
    for (int i = 0; i < MERGERS; ++i) merge(merged, shared.some[i]);
    shared.all = merged;
  });
}

// (h - mean) factor + offset, by channel of the group: factor[c] and offset[c].
template <class Team>
DE_HD void norm_coefficients(Team& team, const GroupNormParams& p, const NormGrid& g, int64_t b, int64_t group,
                             const NormShared& shared, float* coefficients) {
  team.each([&](int thread, NormThread&) {
    // In double and rounded once: every element of the channel inherits these errors.
    const double rstd = 1.0 / sqrt((double)shared.all.m2 / (double)shared.all.count + (double)p.eps);
    for (int64_t c = thread; c < g.size; c += TEAM) {
      const int64_t channel = group * g.size + c;
      const double scale = 1.0 + norm_value(p.scale, b, channel, 0, 0.0f);
      const double offset = norm_value(p.bias, 0, channel, 0, 0.0f) * scale;
      coefficients[c] = (float)(rstd * norm_value(p.weight, 0, channel, 0, 1.0f) * scale);
      coefficients[g.size + c] = (float)(offset + norm_value(p.shift, b, channel, 0, 0.0f));
    }
  });
}

template <int N>
DE_HD void norm_store(const GroupNormParams& p, const NormGrid& g, int64_t b, int64_t group, int part, int thread,
                      const NormThread& s, float mean, const float* coefficients) {
  norm_share<N>(p, g, group, part, thread, [&](int i, const NormPlace& at) {
    if (p.summed.data) norm_write<N>(p.summed, b, at, s.h + i);
    float y[N];
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const int64_t c = at.channel - group * g.size + (g.by_pixel ? k : 0);
      y[k] = fmaf((s.h[i + k] - s.first) - mean, coefficients[c], coefficients[g.size + c]);
      if (p.silu) y[k] = y[k] / (1.0f + expf(-y[k]));
    }
    norm_write<N>(p.out, b, at, y);
  });
}

// MOMENTS: the moments of a part to the workspace. APPLY: the result of a part from all of them. Both:
// a group of one part.
template <int N, bool MOMENTS, bool APPLY, class Team>
DE_HD void norm_block(Team& team, NormShared& shared, float* coefficients, const GroupNormParams& p,
                      const NormGrid& g, int64_t block) {
  const int part = (int)(block % g.parts);
  int64_t b, group;
  divide(block / g.parts, p.groups, b, group);
  Part* parts = static_cast<Part*>(p.workspace) + block / g.parts * g.parts;
  team.each([&](int thread, NormThread& s) {
    shared.each[thread] = norm_load<N>(p, g, b, group, part, thread, s);
  });
  if constexpr (MOMENTS) norm_merge(team, shared, shared.each, TEAM);
  if constexpr (MOMENTS && !APPLY) {
    team.each([&](int thread, NormThread&) {
      if (thread == 0) parts[part] = shared.all;
    });
  } else {
    if constexpr (!MOMENTS) norm_merge(team, shared, parts, g.parts);
    norm_coefficients(team, p, g, b, group, shared, coefficients);
    team.each([&](int thread, NormThread& s) {
      norm_store<N>(p, g, b, group, part, thread, s, shared.all.mean, coefficients);
    });
  }
}

}  // namespace de
