// The arithmetic of a step as passes over a chunk that lies in the first cache. A pass is a loop with
// its weights in registers: 0.2 ns an element, where interpreting the row's terms for every few
// vectors took 1.0 (AVX2).
#pragma once
#include "memory.h"
#include "recipe.h"

namespace de {
namespace {

// What becomes of a sum before it is stored.
struct Keep {
  DE_INLINE Float operator()(Float x, int) { return x; }
};

// Infinite limits change nothing.
struct Clip {
  Float lo, hi, scale;
  DE_INLINE Float operator()(Float x, int) { return at_most(at_least(x, lo), hi) * scale; }
};

// 0 * x is 0 for a finite x and NaN for the others.
struct Watch {
  Float bad[U];
  DE_INLINE Float operator()(Float x, int u) {
    bad[u] += x * 0.0f;
    return x;
  }
};

// N terms, added to +0 or to `before`.
template <int N, class Finish>
void add_terms(const Term* terms, const float* const* sources, const float* before, int64_t n,
               float* to, Finish& after) {
  Finish finish = after;  // a copy that no store can alias stays in registers
  Float weight[N ? N : 1];
  const float* x[N ? N : 1];
  for (int t = 0; t < N; ++t) {
    weight[t] = splat(terms[t].weight);
    x[t] = sources[terms[t].source];
  }
  for (int64_t i = 0; i < n; i += TILE) {
    Float total[U];
    for (int u = 0; u < U; ++u) total[u] = before ? load<Float>(before + i + u * W) : Float{};
    for (int t = 0; t < N; ++t)
      for (int u = 0; u < U; ++u) total[u] += weight[t] * load<Float>(x[t] + i + u * W);
    for (int u = 0; u < U; ++u) store(to + i + u * W, finish(total[u], u));
  }
  after = finish;
}

template <class Finish>
void add_up(const Term* terms, int count, const float* const* sources, const float* before, int64_t n,
            float* to, Finish& finish) {
  switch (count) {
    case 0: return add_terms<0>(terms, sources, before, n, to, finish);
    case 1: return add_terms<1>(terms, sources, before, n, to, finish);
    case 2: return add_terms<2>(terms, sources, before, n, to, finish);
    case 3: return add_terms<3>(terms, sources, before, n, to, finish);
    default: return add_terms<4>(terms, sources, before, n, to, finish);
  }
}

// All terms of a list in the written order, into `to`, which may be one of the sources.
template <class Finish>
void sum(const Terms& terms, const float* const* sources, int64_t n, float* to, Finish& finish) {
  alignas(64) float partial[CHUNK];
  Keep keep;
  const float* before = nullptr;
  int done = 0;
  for (; terms.count - done > 4; done += 4) {
    add_up(terms.term + done, 4, sources, before, n, partial, keep);
    before = partial;
  }
  add_up(terms.term + done, terms.count - done, sources, before, n, to, finish);
}

// The estimate of x0 and the new slot made from it in one pass: E terms of the estimate; of the slot, B
// terms before the estimate and A after it. `kept` is null, or where the estimate is kept for others.
template <int E, int B, int A>
void add_fused(const Terms& estimate, Clip clip, const Terms& state, const float* const* sources,
               int64_t n, float* kept, float* to, Watch& after) {
  Watch watch = after;
  Float weight[E + B + 1 + A];
  const float* x[E + B + 1 + A];
  for (int t = 0; t < E + B + 1 + A; ++t) {
    const Term& term = t < E ? estimate.term[t] : state.term[t - E];
    weight[t] = splat(term.weight);
    x[t] = sources[term.source];
  }
  for (int64_t i = 0; i < n; i += TILE) {
    Float total[U];
    for (int u = 0; u < U; ++u) {
      const int64_t at = i + u * W;
      const auto term = [&](int t) { return weight[t] * load<Float>(x[t] + at); };
      Float made = {};
      for (int t = 0; t < E; ++t) made += term(t);
      made = clip(made, u);
      if (kept) store(kept + at, made);
      total[u] = Float{};
      for (int t = E; t < E + B; ++t) total[u] += term(t);
      total[u] += weight[E + B] * made;
      for (int t = E + B + 1; t < E + B + 1 + A; ++t) total[u] += term(t);
    }
    for (int u = 0; u < U; ++u) store(to + i + u * W, watch(total[u], u));
  }
  after = watch;
}

template <int E, int B>
void add_fused(const Terms& estimate, Clip clip, const Terms& state, const float* const* sources,
               int64_t n, float* kept, float* to, Watch& watch) {
  if (state.count == B + 1) return add_fused<E, B, 0>(estimate, clip, state, sources, n, kept, to, watch);
  add_fused<E, B, 1>(estimate, clip, state, sources, n, kept, to, watch);
}

template <int E>
void add_fused(const Terms& estimate, Clip clip, const Terms& state, const float* const* sources,
               int64_t n, float* kept, float* to, Watch& watch) {
  switch (state.position(ESTIMATE)) {
    case 0: return add_fused<E, 0>(estimate, clip, state, sources, n, kept, to, watch);
    case 1: return add_fused<E, 1>(estimate, clip, state, sources, n, kept, to, watch);
    default: return add_fused<E, 2>(estimate, clip, state, sources, n, kept, to, watch);
  }
}

inline void add_fused(const Terms& estimate, Clip clip, const Terms& state, const float* const* sources,
                      int64_t n, float* kept, float* to, Watch& watch) {
  switch (estimate.count) {
    case 1: return add_fused<1>(estimate, clip, state, sources, n, kept, to, watch);
    case 2: return add_fused<2>(estimate, clip, state, sources, n, kept, to, watch);
    default: return add_fused<3>(estimate, clip, state, sources, n, kept, to, watch);
  }
}

// mask x + (1 - mask) region
template <class Finish>
void blend(const float* mask, const float* x, const float* region, int64_t n, float* to, Finish& after) {
  Finish finish = after;
  for (int64_t i = 0; i < n; i += TILE)
    for (int u = 0; u < U; ++u) {
      const int64_t at = i + u * W;
      const Float free = load<Float>(mask + at);
      const Float total =
          free * load<Float>(x + at) + (1.0f - free) * load<Float>(region + at);
      store(to + at, finish(total, u));
    }
  after = finish;
}

// scale x, in the dtype of the network.
template <int32_t dtype, bool past_caches>
void cast(float scale, const float* x, int64_t n, char* to) {
  const Float weight = splat(scale);
  const int64_t size = size_of(dtype);
  for (int64_t i = 0; i < n; i += TILE)
    for (int u = 0; u < U; ++u)
      store_as<dtype, past_caches>(to + (i + u * W) * size, weight * load<Float>(x + i + u * W));
}

template <int32_t dtype>
void cast(float scale, const float* x, int64_t n, char* to, bool past_caches) {
  if (past_caches && (uintptr_t)to % (W * size_of(dtype)) == 0) return cast<dtype, true>(scale, x, n, to);
  cast<dtype, false>(scale, x, n, to);
}

inline void cast(float scale, const float* x, int64_t n, int32_t dtype, char* to, bool past_caches) {
  if (dtype == F32) return cast<F32>(scale, x, n, to, past_caches);
  if (dtype == BF16) return cast<BF16>(scale, x, n, to, past_caches);
  cast<F16>(scale, x, n, to, past_caches);
}

}  // namespace
}  // namespace de
