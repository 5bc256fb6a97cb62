// The first lanes of a vector: what lies behind the last channel of a row is not ours to touch.
#pragma once
#include <utility>

#include "../vector.h"

namespace de {
namespace {

#if defined(__AVX512F__)
DE_INLINE __mmask16 first_lanes(int64_t n) { return (__mmask16)((1u << n) - 1u); }
#elif defined(__AVX2__)
DE_INLINE __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// 0 <= n < W floats; the other lanes are 0.
DE_INLINE Float load_first(const float* p, int64_t n) {
#if defined(__AVX512F__)
  return (Float)_mm512_maskz_loadu_ps(first_lanes(n), p);
#elif defined(__AVX2__)
  return (Float)_mm256_maskload_ps(p, first_lanes(n));
#else
  Float v = {};
  for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
#endif
}

DE_INLINE void store_first(float* p, Float v, int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, first_lanes(n), (__m512)v);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, first_lanes(n), (__m256)v);
#else
  for (int64_t i = 0; i < n; ++i) p[i] = v[i];
#endif
}

// Vectors of a row, whole or its last: the same arithmetic for both, so that no bit depends on where a
// row was cut.
template <bool WHOLE>
struct Lanes {
  int64_t n = W;
  DE_INLINE Float load(const float* p) const {
    if constexpr (WHOLE) return de::load<Float>(p);
    return load_first(p, n);
  }
  DE_INLINE void store(float* p, Float v) const {
    if constexpr (WHOLE) return de::store(p, v);
    store_first(p, v, n);
  }
};

// Calls run(i, lanes) for every vector of n floats.
template <class Run>
DE_INLINE void each_vector(int64_t n, Run run) {
  int64_t i = 0;
  for (; i + W <= n; i += W) run(i, Lanes<true>{});
  if (i < n) run(i, Lanes<false>{n - i});
}

template <int by, size_t... I>
DE_INLINE Float exchanged(Float v, std::index_sequence<I...>) {
  return __builtin_shufflevector(v, v, (int)(I ^ by)...);
}

// All lanes of `v` by one operation, half onto half: log2(W) of them one after the other, not W.
template <int by = W / 2, class Join>
DE_INLINE float fold(Float v, Join join) {
  v = join(v, exchanged<by>(v, std::make_index_sequence<W>()));
  if constexpr (by > 1) return fold<by / 2>(v, join);
  return v[0];
}

DE_INLINE float sum_lanes(Float v) {
  return fold(v, [](Float a, Float b) { return a + b; });
}

DE_INLINE float max_lanes(Float v) {
  return fold(v, [](Float a, Float b) { return at_least(a, b); });
}

}  // namespace
}  // namespace de
