// Normals of (seed, key, m, element), a few vectors at a time. The scalar build calls philox.h as it
// stands; the others repeat it on vectors, word for word.
#pragma once
#include "vector.h"

namespace de {
namespace {

constexpr int NORMALS_TILE = 4 * W;

DE_INLINE Float exponential(Float x) {
  x = at_most(at_least(x, splat(-87.0f)), splat(88.0f));
  const Float n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;  // nearest integer
  Float r = x - n * LN2_HIGH;
  r = r - n * LN2_LOW;
  const Int power = __builtin_convertvector(n == n ? n : Float{}, Int);  // a nan stays one through r
  return exp_series(r) * (Float)((power + 127) << 23);
}

#if defined(__AVX2__)

// Products of the low 32 bits of each 64-bit lane.
DE_INLINE Wide multiply_low(Wide a, Wide b) {
#if defined(__AVX512F__)
  return (Wide)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#else
  return (Wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#endif
}

// The low halves of 64-bit lanes: a's where l is even, b's where it is odd.
DE_INLINE Word alternate(Wide a, Wide b) {
#if defined(__AVX512F__)
  return (Word)_mm512_mask_blend_epi32(0xAAAA, (__m512i)a, (__m512i)(b << 32));
#else
  return (Word)_mm256_blend_epi32((__m256i)a, (__m256i)(b << 32), 0xAA);
#endif
}

// [a0 b0 a1 b1] and [a2 b2 a3 b3] of every 128 bits, then the same of pairs.
#if defined(__AVX512F__)
DE_INLINE Float zip_low(Float a, Float b) { return (Float)_mm512_unpacklo_ps((__m512)a, (__m512)b); }
DE_INLINE Float zip_high(Float a, Float b) { return (Float)_mm512_unpackhi_ps((__m512)a, (__m512)b); }
DE_INLINE Float pair_low(Float a, Float b) { return (Float)_mm512_unpacklo_pd((__m512d)a, (__m512d)b); }
DE_INLINE Float pair_high(Float a, Float b) { return (Float)_mm512_unpackhi_pd((__m512d)a, (__m512d)b); }
#else
DE_INLINE Float zip_low(Float a, Float b) { return (Float)_mm256_unpacklo_ps((__m256)a, (__m256)b); }
DE_INLINE Float zip_high(Float a, Float b) { return (Float)_mm256_unpackhi_ps((__m256)a, (__m256)b); }
DE_INLINE Float pair_low(Float a, Float b) { return (Float)_mm256_unpacklo_pd((__m256d)a, (__m256d)b); }
DE_INLINE Float pair_high(Float a, Float b) { return (Float)_mm256_unpackhi_pd((__m256d)a, (__m256d)b); }
#endif

// N vectors side by side. A series is a chain of dependent operations; N of them interleaved keep the
// machine busy: 4 instead of 1 made 2.6 ns a normal 1.7 (AVX2).
template <class V, int N>
struct Several {
  V v[N];
};

#define DE_SEVERAL(op)                                                                    \
  template <class V, int N>                                                               \
  DE_INLINE Several<V, N> operator op(Several<V, N> a, const Several<V, N>& b) {          \
    for (int i = 0; i < N; ++i) a.v[i] = a.v[i] op b.v[i];                                \
    return a;                                                                             \
  }                                                                                       \
  template <class V, int N>                                                               \
  DE_INLINE Several<V, N> operator op(Several<V, N> a, float b) {                         \
    for (int i = 0; i < N; ++i) a.v[i] = a.v[i] op b;                                     \
    return a;                                                                             \
  }
DE_SEVERAL(+)
DE_SEVERAL(-)
DE_SEVERAL(*)
#undef DE_SEVERAL

template <int N>
DE_INLINE Several<Float, N> log_uniform(const Several<Word, N>& word) {
  Several<Float, N> x, exponent;
  for (int i = 0; i < N; ++i) {
    const Float u = from_word(word.v[i]) * 0x1p-32f + 0x1p-33f;
    const Int bits = (Int)u - 0x3F3504F3;
    exponent.v[i] = __builtin_convertvector(bits >> 23, Float);
    const Float far = (Float)((bits & 0x7FFFFF) + 0x3F3504F3) - 1.0f;
    const Float near = __builtin_convertvector((Int)~word.v[i], Float) * -0x1p-32f - 0x1p-33f;
    x.v[i] = u >= 0.75f ? near : far;
  }
  return log_series(x, exponent);
}

template <int N>
DE_INLINE void sincos_turn(const Several<Word, N>& word, Several<Float, N>& sine,
                           Several<Float, N>& cosine) {
  Several<Float, N> a;
  for (int i = 0; i < N; ++i) {
    const Int rest = (Int)((word.v[i] + 0x20000000u) & 0x3FFFFFFFu) - 0x20000000;
    a.v[i] = __builtin_convertvector(rest, Float) * 1.4629180792671596e-9f;
  }
  const Several<Float, N> z = a * a, s = sin_series(a, z), c = cos_series(z);
  const Word top = Word{} + 0x80000000u;
  for (int i = 0; i < N; ++i) {
    const Word shifted = word.v[i] + 0x20000000u;
    const Int odd = (Int)(shifted << 1) < 0;  // the quadrant is the two top bits
    sine.v[i] = (Float)((Word)(odd ? c.v[i] : s.v[i]) ^ (shifted & top));
    cosine.v[i] = (Float)((Word)(odd ? s.v[i] : c.v[i]) ^ ((shifted + 0x40000000u) & top));
  }
}

template <int N>
DE_INLINE void box_muller(const Several<Word, N>& a, const Several<Word, N>& b,
                          Several<Float, N>& first, Several<Float, N>& second) {
  Several<Float, N> radius = log_uniform(a) * -2.0f, sine, cosine;
  for (int i = 0; i < N; ++i) radius.v[i] = square_root(radius.v[i]);
  sincos_turn(b, sine, cosine);
  first = radius * cosine;
  second = radius * sine;
}

class Normals {
 public:
  Normals(uint64_t seed, uint32_t key, uint32_t m) : key_(Wide{} + key), m_(Wide{} + m) {
    uint32_t low = (uint32_t)seed, high = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      low_[round] = Wide{} + low;
      high_[round] = Wide{} + high;
      low += 0x9E3779B9u;
      high += 0xBB67AE85u;
    }
    // Lane l works on group (W / 4) (l % 4) + l / 4: then the transpose at the end stays inside
    // every 128 bits. Even lanes and odd lanes are two sets of 64-bit counters.
    uint64_t even[W / 2], odd[W / 2];
    for (int l = 0; l < W; l += 2) {
      even[l / 2] = (W / 4) * (l % 4) + l / 4;
      odd[l / 2] = (W / 4) * (l % 4 + 1) + l / 4;
    }
    even_ = load<Wide>(even);
    odd_ = load<Wide>(odd);
  }

  // Elements 4 group ... 4 group + T NORMALS_TILE - 1.
  template <int T>
  DE_INLINE void tiles(uint64_t group, float* out) const {
    Several<Wide, 2 * T> c[4];
    for (int t = 0; t < T; ++t) {
      c[0].v[2 * t] = even_ + (group + t * W);
      c[0].v[2 * t + 1] = odd_ + (group + t * W);
    }
    philox(c);
    Several<Word, 2 * T> a, b;
    for (int t = 0; t < T; ++t)
      for (int pair = 0; pair < 2; ++pair) {
        const Several<Wide, 2 * T>&radius = c[2 * pair], &angle = c[2 * pair + 1];
        a.v[2 * t + pair] = alternate(radius.v[2 * t], radius.v[2 * t + 1]);
        b.v[2 * t + pair] = alternate(angle.v[2 * t], angle.v[2 * t + 1]);
      }
    Several<Float, 2 * T> x, y;
    box_muller(a, b, x, y);
    for (int t = 0; t < T; ++t, out += NORMALS_TILE) {
      const Float p = zip_low(x.v[2 * t], y.v[2 * t]), q = zip_high(x.v[2 * t], y.v[2 * t]);
      const Float r = zip_low(x.v[2 * t + 1], y.v[2 * t + 1]);
      const Float s = zip_high(x.v[2 * t + 1], y.v[2 * t + 1]);
      store(out, pair_low(p, r));
      store(out + W, pair_high(p, r));
      store(out + 2 * W, pair_low(q, s));
      store(out + 3 * W, pair_high(q, s));
    }
  }

 private:
  // One word in the low half of each 64-bit lane; comes with the group in c[0]. What is left in the
  // high halves is ignored by multiply_low and never moves down.
  template <int N>
  DE_INLINE void philox(Several<Wide, N> c[4]) const {
    const Wide first = Wide{} + 0xD2511F53u, second = Wide{} + 0xCD9E8D57u;
    for (int i = 0; i < N; ++i) {
      c[1].v[i] = c[0].v[i] >> 32;
      c[2].v[i] = key_;
      c[3].v[i] = m_;
    }
    for (int round = 0; round < 10; ++round)
      for (int i = 0; i < N; ++i) {
        const Wide p0 = multiply_low(c[0].v[i], first), p1 = multiply_low(c[2].v[i], second);
        c[0].v[i] = (p1 >> 32) ^ c[1].v[i] ^ low_[round];
        c[1].v[i] = p1;
        c[2].v[i] = (p0 >> 32) ^ c[3].v[i] ^ high_[round];
        c[3].v[i] = p0;
      }
  }

  Wide low_[10], high_[10], even_, odd_, key_, m_;
};

#else

class Normals {
 public:
  Normals(uint64_t seed, uint32_t key, uint32_t m) : seed_(seed), key_(key), m_(m) {}

  template <int T>
  void tiles(uint64_t group, float* out) const {
    for (int i = 0; i < T * NORMALS_TILE; i += 4) normals4(seed_, key_, m_, group + i / 4, out + i);
  }

 private:
  uint64_t seed_;
  uint32_t key_, m_;
};

#endif

// Elements first ... first + count - 1, written `stride` apart.
inline void fill_normals(const Normals& normals, int64_t first, int64_t count, float* out,
                         int64_t stride) {
  constexpr int MOST = 2 * NORMALS_TILE;
  while (count > 0) {
    const int64_t skip = first % 4, taken = count < MOST - skip ? count : MOST - skip;
    const uint64_t group = (uint64_t)first / 4;
    if (taken == MOST && stride == 1) {
      normals.tiles<2>(group, out);
    } else {
      alignas(64) float tile[MOST];
      if (skip + taken > NORMALS_TILE)
        normals.tiles<2>(group, tile);
      else
        normals.tiles<1>(group, tile);
      for (int64_t i = 0; i < taken; ++i) out[i * stride] = tile[skip + i];
    }
    first += taken;
    out += taken * stride;
    count -= taken;
  }
}

}  // namespace
}  // namespace de
