// Normals of (seed, key, m, element), a tile of 4 W at a time. The scalar build calls philox.h as it
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

DE_INLINE Float log_uniform(Word word) {
  const Float u = from_word(word) * 0x1p-32f + 0x1p-33f;
  const Int bits = (Int)u - 0x3F3504F3;
  const Float exponent = __builtin_convertvector(bits >> 23, Float);
  const Float far = (Float)((bits & 0x7FFFFF) + 0x3F3504F3) - 1.0f;
  const Float near = __builtin_convertvector((Int)~word, Float) * -0x1p-32f - 0x1p-33f;
  return log_series(u >= 0.75f ? near : far, exponent);
}

DE_INLINE void sincos_turn(Word word, Float& sine, Float& cosine) {
  const Word shifted = word + 0x20000000u, top = Word{} + 0x80000000u;
  const Float a =
      __builtin_convertvector((Int)(shifted & 0x3FFFFFFFu) - 0x20000000, Float) * 1.4629180792671596e-9f;
  const Float z = a * a, s = sin_series(a, z), c = cos_series(z);
  const Int odd = (Int)(shifted << 1) < 0;  // the quadrant is the two top bits
  sine = (Float)((Word)(odd ? c : s) ^ (shifted & top));
  cosine = (Float)((Word)(odd ? s : c) ^ ((shifted + 0x40000000u) & top));
}

DE_INLINE void box_muller(Word a, Word b, Float& first, Float& second) {
  const Float radius = square_root(log_uniform(a) * -2.0f);
  Float sine, cosine;
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
    for (int l = 0; l < W; ++l) (l % 2 ? odd_ : even_)[l / 2] = (W / 4) * (l % 4) + l / 4;
  }

  // Elements 4 group ... 4 group + NORMALS_TILE - 1.
  DE_INLINE void tile(uint64_t group, float* out) const {
    Wide e[4], o[4];
    philox(even_ + group, e);
    philox(odd_ + group, o);
    Word w[4];
    for (int i = 0; i < 4; ++i) w[i] = (Word)((e[i] & 0xFFFFFFFFu) | o[i] << 32);
    Float z[4];
    box_muller(w[0], w[1], z[0], z[1]);
    box_muller(w[2], w[3], z[2], z[3]);
    const Float a = zip_low(z[0], z[1]), b = zip_high(z[0], z[1]);
    const Float c = zip_low(z[2], z[3]), d = zip_high(z[2], z[3]);
    store(out, pair_low(a, c));
    store(out + W, pair_high(a, c));
    store(out + 2 * W, pair_low(b, d));
    store(out + 3 * W, pair_high(b, d));
  }

 private:
  // One word in the low half of each 64-bit lane. What is left in the high halves is ignored by
  // multiply_low and never moves down.
  DE_INLINE void philox(Wide group, Wide c[4]) const {
    const Wide first = Wide{} + 0xD2511F53u, second = Wide{} + 0xCD9E8D57u;
    c[0] = group;
    c[1] = group >> 32;
    c[2] = key_;
    c[3] = m_;
    for (int round = 0; round < 10; ++round) {
      const Wide p0 = multiply_low(c[0], first), p1 = multiply_low(c[2], second);
      c[0] = (p1 >> 32) ^ c[1] ^ low_[round];
      c[1] = p1;
      c[2] = (p0 >> 32) ^ c[3] ^ high_[round];
      c[3] = p0;
    }
  }

  Wide low_[10], high_[10], even_, odd_, key_, m_;
};

#else

class Normals {
 public:
  Normals(uint64_t seed, uint32_t key, uint32_t m) : seed_(seed), key_(key), m_(m) {}

  void tile(uint64_t group, float* out) const {
    for (int i = 0; i < NORMALS_TILE; i += 4) normals4(seed_, key_, m_, group + i / 4, out + i);
  }

 private:
  uint64_t seed_;
  uint32_t key_, m_;
};

#endif

// Elements first ... first + count - 1, written `stride` apart.
inline void fill_normals(const Normals& normals, int64_t first, int64_t count, float* out,
                         int64_t stride) {
  while (count > 0) {
    const int64_t skip = first % 4, room = NORMALS_TILE - skip;
    const int64_t taken = count < room ? count : room;
    if (taken == NORMALS_TILE && stride == 1) {
      normals.tile((uint64_t)first / 4, out);
    } else {
      alignas(64) float tile[NORMALS_TILE];
      normals.tile((uint64_t)first / 4, tile);
      for (int64_t i = 0; i < taken; ++i) out[i * stride] = tile[skip + i];
    }
    first += taken;
    out += taken * stride;
    count -= taken;
  }
}

}  // namespace
}  // namespace de
