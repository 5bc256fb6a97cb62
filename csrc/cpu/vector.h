// A vector of floats as wide as the instructions that the including file is compiled for. GCC's and
// clang's vector types do the arithmetic, each operation rounded on its own; intrinsics only where
// those cannot say it. Everything is in an unnamed namespace: the same source is compiled several
// times and the linker must not mix the results.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "philox.h"
#include "step.h"

#if defined(__AVX2__)
// GCC 12 warns about its own _mm512_undefined_ps (its bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace de {
namespace {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float Float __attribute__((vector_size(4 * W)));
typedef int32_t Int __attribute__((vector_size(4 * W)));
typedef uint32_t Word __attribute__((vector_size(4 * W)));
typedef uint64_t Wide __attribute__((vector_size(4 * W)));
typedef uint16_t Half __attribute__((vector_size(2 * W)));

#define DE_INLINE inline __attribute__((always_inline))

DE_INLINE Float splat(float x) { return x - Float{}; }

template <class V>
DE_INLINE V load(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class V>
DE_INLINE void store(void* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

// A store past the caches; `p` is aligned to the vector. fence() makes such stores visible.
DE_INLINE void stream(void* p, Float v) {
#if defined(__AVX512F__)
  _mm512_stream_ps((float*)p, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps((float*)p, (__m256)v);
#else
  store(p, v);
#endif
}

DE_INLINE void stream(void* p, Half v) {
#if defined(__AVX512F__)
  _mm256_stream_si256((__m256i*)p, (__m256i)v);
#elif defined(__AVX2__)
  _mm_stream_si128((__m128i*)p, (__m128i)v);
#else
  store(p, v);
#endif
}

DE_INLINE void fence() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// a b + c, rounded once where the machine has it. For the layers' kernels alone: the step's bits are
// those of separate roundings.
DE_INLINE Float multiply_add(Float a, Float b, Float c) {
#if defined(__AVX512F__)
  return (Float)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Float)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// Correctly rounded: each half converts exactly, their sum is rounded once.
DE_INLINE Float from_word(Word w) {
#if defined(__AVX512F__)
  return (Float)_mm512_cvtepu32_ps((__m512i)w);
#else
  return __builtin_convertvector((Int)(w >> 16), Float) * 65536.0f +
         __builtin_convertvector((Int)(w & 0xFFFFu), Float);
#endif
}

DE_INLINE Float square_root(Float x) {
#if defined(__AVX512F__)
  return (Float)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
  return (Float)_mm256_sqrt_ps((__m256)x);
#else
  for (int i = 0; i < W; ++i) x[i] = std::sqrt(x[i]);
  return x;
#endif
}

// x < lo ? lo : x and x > hi ? hi : x, so that NaN passes: max and min return their second operand
// when the comparison fails.
DE_INLINE Float at_least(Float x, Float lo) {
#if defined(__AVX512F__)
  return (Float)_mm512_max_ps((__m512)lo, (__m512)x);
#elif defined(__AVX2__)
  return (Float)_mm256_max_ps((__m256)lo, (__m256)x);
#else
  return x < lo ? lo : x;
#endif
}

DE_INLINE Float at_most(Float x, Float hi) {
#if defined(__AVX512F__)
  return (Float)_mm512_min_ps((__m512)hi, (__m512)x);
#elif defined(__AVX2__)
  return (Float)_mm256_min_ps((__m256)hi, (__m256)x);
#else
  return x > hi ? hi : x;
#endif
}

inline float half_to_float(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7FFFu;
  if (magnitude >= 0x7C00u) return as_float(sign | 0x7F800000u | magnitude << 13);
  const float value = (float)magnitude * 0x1p-24f;  // subnormal, or else the exponent follows
  if (magnitude < 0x0400u) return as_float(sign | as_bits(value));
  return as_float(sign | ((magnitude << 13) + 0x38000000u));
}

// To nearest, ties to even; beyond 65520 infinity, NaN stays a quiet one.
inline uint16_t float_to_half(float f) {
  const uint32_t bits = as_bits(f), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | (magnitude >> 13 & 0x1FFu));
  if (magnitude >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);
  // Below 2^-14 the sum with 1/2 has the spacing of half's subnormals.
  if (magnitude < 0x38800000u) return (uint16_t)(sign | (as_bits(as_float(magnitude) + 0.5f) - 0x3F000000u));
  return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13));
}

DE_INLINE Float from_half(Half h) {
#if defined(__AVX512F__)
  return (Float)_mm512_cvtph_ps((__m256i)h);
#elif defined(__AVX2__)
  return (Float)_mm256_cvtph_ps((__m128i)h);
#else
  Float f;
  for (int i = 0; i < W; ++i) f[i] = half_to_float(h[i]);
  return f;
#endif
}

DE_INLINE Half to_half(Float f) {
#if defined(__AVX512F__)
  return (Half)_mm512_cvtps_ph((__m512)f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
  return (Half)_mm256_cvtps_ph((__m256)f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  Half h;
  for (int i = 0; i < W; ++i) h[i] = float_to_half(f[i]);
  return h;
#endif
}

DE_INLINE Float from_bfloat(Half h) { return (Float)(__builtin_convertvector(h, Word) << 16); }

DE_INLINE Half to_bfloat(Float f) {
  const Word bits = (Word)f;
  const Word rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  const Word quiet = bits >> 16 | 0x40u;
  return __builtin_convertvector((Word)(f == f ? (Int)rounded : (Int)quiet), Half);
}

}  // namespace
}  // namespace de
