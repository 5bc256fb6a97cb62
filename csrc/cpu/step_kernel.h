// The op `step` on some elements of some samples: the same source for every instruction set.
#pragma once
#include "memory.h"
#include "random.h"
#include "noise.h"
#include "recipe.h"

namespace de {
namespace {

constexpr int STATE = 0, SHOWN = STATE + SLOTS, INPUT = SHOWN + 1, TARGETS = INPUT + INPUTS;

// A term list over one tile, from +0 in the written order.
DE_INLINE Tile sum(const Terms& terms, const Source* sources, int64_t i) {
  Tile total = {};
  for (int t = 0; t < terms.count; ++t) {
    const Term term = terms.term[t];
    const Float weight = splat(term.weight);
    const Tile x = sources[term.source].tile(i);
    for (int u = 0; u < U; ++u) total.v[u] += weight * x.v[u];
  }
  return total;
}

class Sample {
 public:
  explicit Sample(const StepParams& p) : p_(p), order_(p.channels, p.pixels, p.slot[0]) {}

  // Elements [first, last) of sample b; returns whether a value that is not finite was written.
  bool step(int64_t b, int64_t first, int64_t last) {
    locate(b);
    bad_ = Float{};
    for (int64_t f = first; f < last; f += CHUNK) {
      const int64_t n = last - f < CHUNK ? last - f : CHUNK, full = n - n % TILE;
      if (full) chunk(f, full, false);
      if (n > full) chunk(f + full, n - full, true);
    }
    for (int i = 0; i < W; ++i)
      if (bad_[i] != bad_[i]) return true;
    return false;
  }

 private:
  // The views of sample b and its row's recipe, kept while it does not change.
  void locate(int64_t b) {
    b_ = b;
    const int32_t row = p_.row[b];
    const int32_t* index = p_.index + (int64_t)row * INDEX;
    uint32_t present = 0;
    for (int j = 0; j < p_.outputs; ++j) {
      const int32_t entry = p_.src ? p_.src[b * p_.outputs + j] : -1;
      if (entry >= 0 && output(entry, index[H + j], views_[OUT + j])) present |= 1u << j;
    }
    if (row != row_ || present != present_) recipe_.build(p_, row, present);
    row_ = row;
    present_ = present;
    inputs_ = entries() ? p_.inputs : 0;
    used_ = recipe_.used;
    for (int i = 0; i < inputs_; ++i) {
      const int read = recipe_.index[READ + i];
      if (!(recipe_.written >> read & 1)) used_ |= 1u << (SLOT + read);
    }
    for (int k = 0; k < p_.slots; ++k) views_[SLOT + k] = at_sample(p_.slot[k]);
    if (p_.noise.data)
      for (int m = 0; m <= NORMALS; ++m) {
        views_[DRAW + m] = at_sample(p_.noise);
        views_[DRAW + m].data = (float*)views_[DRAW + m].data + m * p_.noise_draw;
      }
    views_[MASK] = at_sample(p_.mask);
    views_[KNOWN] = at_sample(p_.known);
  }

  View at_sample(View v) const { return moved(v, b_ * v.batch); }

  static View moved(View v, int64_t elements) {
    v.data = (char*)v.data + elements * size_of(v.dtype);
    return v;
  }

  // Block h of an entry of the network's outputs; block numbers run on across the tensors.
  bool output(int32_t entry, int32_t h, View& view) const {
    for (int t = 0; t < p_.tensors && h >= 0; h -= p_.blocks[t++]) {
      if (h >= p_.blocks[t]) continue;
      const View& v = p_.out[t];
      view = moved(v, entry * v.batch + h * p_.block * v.channel);
      return true;
    }
    return false;
  }

  const int32_t* destinations() const { return p_.dst + b_ * p_.entries; }

  // How many entries of the network's next batch the sample fills.
  int entries() const {
    int count = 0;
    for (int g = 0; p_.net_in.data && p_.dst && g < p_.entries; ++g) count += destinations()[g] >= 0;
    return count;
  }

  View input(int32_t entry, int i) const {
    return moved(p_.net_in, entry * p_.net_in.batch + i * p_.block * p_.net_in.channel);
  }

  void chunk(int64_t first, int64_t n, bool tail) {
    Source sources[SOURCES];
    Target targets[TARGETS];
    View written[TARGETS];
    buffers_ = 0;
    for (int s = 0; s < MEMORY; ++s)
      if (used_ >> s & 1) sources[s] = source(s, first, n, tail);
    if (recipe_.learned) scale_normals(sources, n);

    for (int k = 0; k < p_.slots; ++k)
      if (recipe_.written >> k & 1) written[STATE + k] = views_[SLOT + k];
    if (p_.denoised.data) written[SHOWN] = at_sample(p_.denoised);
    int32_t leader = -1;
    for (int g = 0; inputs_ && leader < 0; ++g) leader = destinations()[g];
    for (int i = 0; i < inputs_; ++i) written[INPUT + i] = input(leader, i);
    for (int t = 0; t < TARGETS; ++t)
      if (writes(t)) targets[t] = target(written[t], first, tail);

    tiles(sources, targets, n);

    for (int t = 0; t < TARGETS; ++t)
      if (writes(t) && staged(written[t], tail))
        scatter(order_, written[t], first, n, (const float*)targets[t].data);
    for (int i = 0; i < inputs_; ++i) copy_input(i, leader, targets[INPUT + i], first, n, tail);
  }

  bool writes(int t) const {
    if (t < SHOWN) return recipe_.written >> t & 1;
    return t == SHOWN ? p_.denoised.data != nullptr : t - INPUT < inputs_;
  }

  bool staged(const View& v, bool tail) const { return tail || !order_.flat(v); }

  float* buffer() { return buffer_[buffers_++]; }

  Source source(int s, int64_t first, int64_t n, bool tail) {
    const View& v = views_[s];
    const bool drawn = s >= DRAW && s <= DRAW + NORMALS;
    const bool scaled = drawn && recipe_.learned && s < DRAW + NORMALS;
    if (!(drawn && !p_.noise.data) && !scaled && !staged(v, tail)) {
      const int64_t size = size_of(v.dtype);
      return Source{(const char*)v.data + first * size, size, v.dtype};
    }
    float* to = buffer();
    if (drawn && !p_.noise.data)
      draw(s - DRAW, first, n, to);
    else
      gather(order_, v, first, n, to);
    pad(to, n);
    return Source{(const char*)to, 4, F32};
  }

  void draw(int m, int64_t first, int64_t n, float* to) const {
    const Normals normals((uint64_t)p_.seed[b_], (uint32_t)recipe_.index[KEY], (uint32_t)m);
    order_.runs(first, n, [&](int64_t c, int64_t px, int64_t count, int64_t at, int64_t by) {
      fill_normals(normals, c * p_.pixels + px, count, to + at, by);
    });
  }

  // z exp(V0 + V1 out[JV]); an absent output counts as 0.
  void scale_normals(const Source* sources, int64_t n) const {
    const Float v0 = splat(recipe_.coef[V0]), v1 = splat(recipe_.coef[V1]);
    const int jv = recipe_.variance;
    const bool present = present_ >> jv & 1;
    for (int64_t i = 0; i < n; i += TILE) {
      const Tile variance = present ? sources[OUT + jv].tile(i) : Tile{};
      for (int u = 0; u < U; ++u) {
        const Float scale = exponential(v0 + v1 * variance.v[u]);
        for (int m = 0; m < NORMALS; ++m) {
          if (!(used_ >> (DRAW + m) & 1)) continue;
          float* z = (float*)sources[DRAW + m].data + i + u * W;
          store(z, load<Float>(z) * scale);
        }
      }
    }
  }

  Target target(const View& v, int64_t first, bool tail) {
    Target t;
    t.dtype = v.dtype;
    t.step = size_of(v.dtype);
    t.data = (char*)v.data + first * t.step;
    if (staged(v, tail)) {
      t.data = (char*)buffer();
      t.step = 4;
      t.dtype = F32;
    }
    return t;
  }

  void tiles(Source* sources, const Target* targets, int64_t n) {
    const Recipe& r = recipe_;
    Tile estimate, heads, state[SLOTS];
    sources[ESTIMATE] = Source{(const char*)&estimate, 0, F32};
    sources[HEADS] = Source{(const char*)&heads, 0, F32};
    for (int64_t i = 0; i < n; i += TILE) {
      if (r.estimated) estimate = estimated(sources, i);
      if (r.headed) heads = sum(r.heads, sources, i);
      for (int k = 0; k < p_.slots; ++k)
        if (r.written >> k & 1) state[k] = sum(r.state[k], sources, i);
      if (r.masked) state[0] = blended(state[0], sources, i);

      for (int k = 0; k < p_.slots; ++k) {
        if (!(r.written >> k & 1)) continue;
        targets[STATE + k].set(i, state[k]);
        if (p_.status)  // 0 * x is 0 for a finite x and NaN for the others
          for (int u = 0; u < U; ++u) bad_ += state[k].v[u] * 0.0f;
      }
      if (p_.denoised.data) targets[SHOWN].set(i, estimate);
      for (int j = 0; j < inputs_; ++j) {
        const int read = r.index[READ + j];
        Tile x = r.written >> read & 1 ? state[read] : sources[SLOT + read].tile(i);
        for (int u = 0; u < U; ++u) x.v[u] *= splat(r.coef[C_IN + j]);
        targets[INPUT + j].set(i, x);
      }
    }
  }

  DE_INLINE Tile estimated(const Source* sources, int64_t i) const {
    Tile x = sum(recipe_.estimate, sources, i);
    if (recipe_.clipped)
      for (int u = 0; u < U; ++u)
        x.v[u] = at_most(at_least(x.v[u], splat(recipe_.coef[LO])), splat(recipe_.coef[HI]));
    for (int u = 0; u < U; ++u) x.v[u] *= splat(recipe_.coef[SCALE]);
    return x;
  }

  DE_INLINE Tile blended(Tile x, const Source* sources, int64_t i) const {
    const Tile mask = sources[MASK].tile(i), region = sum(recipe_.region, sources, i);
    for (int u = 0; u < U; ++u)
      x.v[u] = mask.v[u] * x.v[u] + (1.0f - mask.v[u]) * region.v[u];
    return x;
  }

  // The sample's other entries get what the leader got, while it is still in the cache.
  void copy_input(int i, int32_t leader, const Target& made, int64_t first, int64_t n, bool tail) const {
    bool led = false;
    for (int g = 0; g < p_.entries; ++g) {
      const int32_t entry = destinations()[g];
      if (entry == leader && !led) {
        led = true;
      } else if (entry >= 0 && entry != leader) {
        const View v = input(entry, i);
        if (staged(v, tail))
          scatter(order_, v, first, n, (const float*)made.data);
        else
          std::memcpy((char*)v.data + first * made.step, made.data, n * made.step);
      }
    }
  }

  const StepParams& p_;
  const Order order_;
  int64_t b_ = 0;
  int32_t row_ = -1;
  uint32_t present_ = 0, used_ = 0;
  int inputs_ = 0, buffers_ = 0;
  Float bad_ = {};
  Recipe recipe_;
  View views_[MEMORY];
  // Every source and every target may need one.
  alignas(64) float buffer_[MEMORY + TARGETS][CHUNK];
};

void step(const StepParams& p, int64_t b0, int64_t b1, int64_t first, int64_t last) {
  Sample sample(p);
  for (int64_t b = b0; b < b1; ++b)
    if (p.row[b] >= 0 && sample.step(b, first, last) && p.status)
      __atomic_store_n(&p.status[b], 1, __ATOMIC_RELAXED);  // threads share samples
}

// The op `noise` on elements [first, last), counted (channel, pixel) whatever the layout.
void noise(const NoiseParams& p, int64_t b0, int64_t b1, int64_t first, int64_t last) {
  for (int64_t b = b0; b < b1; ++b) {
    const Normals normals((uint64_t)p.seed[b], p.key, p.m);
    for (int64_t e = first; e < last;) {
      const int64_t c = e / p.pixels, px = e % p.pixels;
      const int64_t count = last - e < p.pixels - px ? last - e : p.pixels - px;
      float* to = (float*)p.out.data + b * p.out.batch + c * p.out.channel + px * p.out.pixel;
      fill_normals(normals, e, count, to, p.out.pixel);
      e += count;
    }
  }
}

}  // namespace
}  // namespace de
