// The op `step` on some elements of some samples: the same source for every instruction set.
#pragma once
#include "noise.h"
#include "random.h"
#include "passes.h"

namespace de {
namespace {

// A network input of at least so many bytes is written past the caches, which do not hold it and the
// slots and outputs together: 16 x 3 x 256 x 256 took 0.7 instead of 1.0 ns an element. At 4 MiB there
// was no difference.
constexpr int64_t PAST_CACHES = 8 << 20;

class Sample {
 public:
  explicit Sample(const StepParams& p)
      : p_(p), order_(p.channels, p.pixels, p.slot[0]),
        past_caches_(p.batch * p.channels * p.pixels * p.inputs * size_of(p.net_in.dtype) >= PAST_CACHES) {}

  // Elements [first, last) of sample b; returns whether a value that is not finite was written.
  bool step(int64_t b, int64_t first, int64_t last) {
    locate(b);
    watch_ = Watch{};
    for (int64_t f = first; f < last; f += CHUNK) {
      const int64_t n = last - f < CHUNK ? last - f : CHUNK, full = n - n % TILE;
      if (full) chunk(f, full);
      if (n > full) chunk(f + full, n - full);
    }
    bool found = false;
    for (const Float& bad : watch_.bad)
      for (int i = 0; i < W; ++i) found |= bad[i] != bad[i];
    return found;
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
    stored_ = p_.noise.data && (!p_.given || p_.given[b]);
    if (stored_)
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

  // Elements [first, first + n) of the walk: whole tiles, or fewer than one at the end of a sample.
  void chunk(int64_t first, int64_t n) {
    first_ = first;
    n_ = n;
    padded_ = (n + TILE - 1) / TILE * TILE;
    buffers_ = 0;
    for (uint32_t left = used_; left; left &= left - 1) {
      const int s = __builtin_ctz(left);
      sources_[s] = source(s);
    }
    if (recipe_.learned) scale_normals();
    if (recipe_.estimated && recipe_.fused < 0) make_estimate();
    if (recipe_.headed) {
      float* to = buffer();
      sum(recipe_.heads, sources_, padded_, to, keep_);
      sources_[HEADS] = to;
    }
    for (int k = 0; k < p_.slots; ++k) {
      if (!(recipe_.written >> k & 1)) continue;
      const bool held = recipe_.held >> k & 1;
      made_[k] = in_place(views_[SLOT + k]) && !held ? address(views_[SLOT + k]) : buffer();
      if (k == recipe_.fused)
        make_fused(k, made_[k]);
      else if (p_.status)
        make_state(k, made_[k], watch_);
      else
        make_state(k, made_[k], keep_);
    }
    // Only now: until here every sum read the old slots.
    for (int k = 0; k < p_.slots; ++k)
      if (recipe_.written >> k & 1) put(views_[SLOT + k], made_[k]);
    for (int i = 0; i < inputs_; ++i) make_input(i);
  }

  // Whether a pass may read or write the view where it lies.
  bool in_place(const View& v) const { return v.dtype == F32 && n_ == padded_ && order_.flat(v); }

  float* address(const View& v) const { return (float*)v.data + first_; }

  float* buffer() { return buffer_[buffers_++]; }

  void put(const View& v, const float* made) const {
    if (!(in_place(v) && made == address(v))) scatter(order_, v, first_, n_, made);
  }

  const float* source(int s) {
    const bool drawn = s >= DRAW && s <= DRAW + NORMALS;
    const bool scaled = drawn && recipe_.learned && s < DRAW + NORMALS;
    const bool stored = !drawn || stored_;
    if (stored && !scaled && in_place(views_[s])) return address(views_[s]);
    float* to = buffer();
    if (stored)
      gather(order_, views_[s], first_, n_, to);
    else
      draw(s - DRAW, to);
    pad(to, n_);
    return to;
  }

  void draw(int m, float* to) const {
    const Normals normals((uint64_t)p_.seed[b_], (uint32_t)recipe_.index[KEY], (uint32_t)m);
    order_.runs(first_, n_, [&](int64_t c, int64_t px, int64_t count, int64_t at, int64_t by) {
      fill_normals(normals, c * p_.pixels + px, count, to + at, by);
    });
  }

  // z exp(V0 + V1 out[JV]); an absent output counts as 0.
  void scale_normals() const {
    const Float v0 = splat(recipe_.coef[V0]), v1 = splat(recipe_.coef[V1]);
    const bool present = present_ >> recipe_.variance & 1;
    for (int64_t i = 0; i < padded_; i += W) {
      const Float x = present ? load<Float>(sources_[OUT + recipe_.variance] + i) : Float{};
      const Float scale = exponential(v0 + v1 * x);
      for (int m = 0; m < NORMALS; ++m) {
        if (!(used_ >> (DRAW + m) & 1)) continue;
        float* z = const_cast<float*>(sources_[DRAW + m]) + i;  // a buffer: see source()
        store(z, load<Float>(z) * scale);
      }
    }
  }

  Clip clip() const {
    return Clip{splat(recipe_.coef[LO]), splat(recipe_.coef[HI]), splat(recipe_.coef[SCALE])};
  }

  void make_fused(int k, float* to) {
    float* kept = recipe_.kept ? buffer() : nullptr;
    sources_[ESTIMATE] = kept;
    add_fused(recipe_.estimate, clip(), recipe_.state[k], sources_, padded_, kept, to, watch_);
  }

  void make_estimate() {
    const View shown = p_.denoised.data ? at_sample(p_.denoised) : View{};
    float* to = shown.data && in_place(shown) ? address(shown) : buffer();
    Clip finish = clip();
    sum(recipe_.estimate, sources_, padded_, to, finish);
    if (shown.data) put(shown, to);
    sources_[ESTIMATE] = to;
  }

  template <class Finish>
  void make_state(int k, float* to, Finish& finish) {
    if (!recipe_.masked || k > 0) return sum(recipe_.state[k], sources_, padded_, to, finish);
    float *free = buffer(), *region = buffer();
    sum(recipe_.state[0], sources_, padded_, free, keep_);
    sum(recipe_.region, sources_, padded_, region, keep_);
    blend(sources_[MASK], free, region, padded_, to, finish);
  }

  // The next network input i, into every entry that the sample fills.
  void make_input(int i) {
    const int read = recipe_.index[READ + i];
    const float* x = recipe_.written >> read & 1 ? made_[read] : sources_[SLOT + read];
    const float scale = recipe_.coef[C_IN + i];
    const int64_t size = size_of(p_.net_in.dtype);
    const char* copied = nullptr;
    float* staged = nullptr;
    for (int g = 0; g < p_.entries; ++g) {
      if (destinations()[g] < 0) continue;
      const View v = input(destinations()[g], i);
      char* to = (char*)v.data + first_ * size;
      if (n_ < padded_ || !order_.flat(v)) {
        if (!staged) cast<F32, false>(scale, x, padded_, (char*)(staged = buffer()));
        scatter(order_, v, first_, n_, staged);
      } else if (!copied) {
        cast(scale, x, n_, v.dtype, to, past_caches_);
        copied = to;
      } else if (to != copied) {
        std::memcpy(to, copied, n_ * size);
      }
    }
  }

  const StepParams& p_;
  const Order order_;
  const bool past_caches_;
  bool stored_ = false;  // the sample's normals are read, not drawn
  int64_t b_ = 0, first_ = 0, n_ = 0, padded_ = 0;
  int32_t row_ = -1;
  uint32_t present_ = 0, used_ = 0;
  int inputs_ = 0, buffers_ = 0;
  Keep keep_;
  Watch watch_;
  Recipe recipe_;
  View views_[MEMORY];
  const float* sources_[SOURCES];
  float* made_[SLOTS];
  // One for every source, estimate, new slot and input, and two for the blend.
  alignas(64) float buffer_[SOURCES + SLOTS + INPUTS + 2][CHUNK];
};

void step(const StepParams& p, int64_t b0, int64_t b1, int64_t first, int64_t last) {
  Sample sample(p);
  for (int64_t b = b0; b < b1; ++b)
    if (p.row[b] >= 0 && sample.step(b, first, last) && p.status)
      __atomic_store_n(&p.status[b], 1, __ATOMIC_RELAXED);  // threads share samples
  fence();
}

// The op `noise` on elements [first, last), counted (channel, pixel) whatever the layout.
void noise(const NoiseParams& p, int64_t b0, int64_t b1, int64_t first, int64_t last) {
  for (int64_t b = b0; b < b1; ++b) {
    if (p.row && p.row[b] < 0) continue;
    const uint32_t own = p.row ? (uint32_t)p.index[(int64_t)p.row[b] * INDEX + KEY] : 0;
    const Normals normals((uint64_t)p.seed[b], p.key + own, p.m);
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
