// Philox4x32-10 (Salmon et al. 2011) and the map to normals, one element at a time, for host and
// device. diffusion_engine/noise.py is the definition; every product and sum is rounded on its own
// (-ffp-contract=off, -fmad=false), so the bits agree.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define DE_HD __host__ __device__ __forceinline__
#else
#define DE_HD inline __attribute__((always_inline))
#endif

namespace de {

struct Words {
  uint32_t w[4];
};

DE_HD Words philox(Words c, uint32_t k0, uint32_t k1) {
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int i = 0; i < 10; ++i) {
    if (i) {
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const uint64_t p0 = 0xD2511F53ull * c.w[0], p1 = 0xCD9E8D57ull * c.w[2];
    c = Words{{(uint32_t)(p1 >> 32) ^ c.w[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c.w[3] ^ k1,
               (uint32_t)p0}};
  }
  return c;
}

DE_HD float as_float(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
#endif
}

DE_HD uint32_t as_bits(float f) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(f);
#else
  uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  return bits;
#endif
}

DE_HD float square_root(float x) {
#ifdef __CUDA_ARCH__
  return __fsqrt_rn(x);
#else
  return std::sqrt(x);
#endif
}

constexpr float LN2_LOW = -2.12194440e-4f, LN2_HIGH = 0.693359375f;

// The series are templates so that csrc/cpu's vectors use them too.

// ln((1 + x) 2^exponent)
template <class T>
DE_HD T log_series(T x, T exponent) {
  const T z = x * x;
  T y = x * 7.0376836292e-2f + -1.1514610310e-1f;
  y = y * x + 1.1676998740e-1f;
  y = y * x + -1.2420140846e-1f;
  y = y * x + 1.4249322787e-1f;
  y = y * x + -1.6668057665e-1f;
  y = y * x + 2.0000714765e-1f;
  y = y * x + -2.4999993993e-1f;
  y = y * x + 3.3333331174e-1f;
  y = y * x * z + exponent * LN2_LOW;
  y = y - z * 0.5f;
  return (x + y) + exponent * LN2_HIGH;
}

// sin(a), z = a^2
template <class T>
DE_HD T sin_series(T a, T z) {
  T s = z * -1.9515295891e-4f + 8.3321608736e-3f;
  s = s * z + -1.6666654611e-1f;
  return s * z * a + a;
}

// cos of the square root of z
template <class T>
DE_HD T cos_series(T z) {
  T c = z * 2.443315711809948e-5f + -1.388731625493765e-3f;
  c = c * z + 4.166664568298827e-2f;
  return c * z * z - z * 0.5f + 1.0f;
}

// e^r near 0
template <class T>
DE_HD T exp_series(T r) {
  T y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  return y * (r * r) + r + 1.0f;
}

// ln((word + 1/2) / 2^32)
DE_HD float log_uniform(uint32_t word) {
  const float u = (float)word * 0x1p-32f + 0x1p-33f;
  const int32_t bits = (int32_t)as_bits(u) - 0x3F3504F3;
  const float exponent = (float)(bits >> 23);
  float x = as_float((uint32_t)((bits & 0x7FFFFF) + 0x3F3504F3)) - 1.0f;
  // Near 1 the float u has lost the digits of 1 - u; the integer still has them.
  if (u >= 0.75f) x = (float)(int32_t)~word * -0x1p-32f - 0x1p-33f;
  return log_series(x, exponent);
}

// Sine and cosine of 2 pi word / 2^32.
DE_HD void sincos_turn(uint32_t word, float& sine, float& cosine) {
  const uint32_t shifted = word + 0x20000000u, quadrant = shifted >> 30;
  const float a = (float)((int32_t)(shifted & 0x3FFFFFFFu) - 0x20000000) * 1.4629180792671596e-9f;
  const float z = a * a;
  const float s = sin_series(a, z), c = cos_series(z);
  sine = quadrant & 1 ? c : s;
  cosine = quadrant & 1 ? s : c;
  if (quadrant >= 2) sine = -sine;
  if (quadrant == 1 || quadrant == 2) cosine = -cosine;
}

// e^x, x clamped to [-87, 88].
DE_HD float exponential(float x) {
  if (x < -87.0f) x = -87.0f;
  if (x > 88.0f) x = 88.0f;
  const float n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;  // nearest integer
  float r = x - n * LN2_HIGH;
  r = r - n * LN2_LOW;
  const int32_t power = n == n ? (int32_t)n : 0;  // a nan stays one through r
  return exp_series(r) * as_float((uint32_t)(power + 127) << 23);
}

// The normals of elements 4 group ... 4 group + 3.
DE_HD void normals4(uint64_t seed, uint32_t key, uint32_t m, uint64_t group, float z[4]) {
  const Words r = philox(Words{{(uint32_t)group, (uint32_t)(group >> 32), key, m}}, (uint32_t)seed,
                         (uint32_t)(seed >> 32));
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int pair = 0; pair < 2; ++pair) {
    const float radius = square_root(log_uniform(r.w[2 * pair]) * -2.0f);
    float sine, cosine;
    sincos_turn(r.w[2 * pair + 1], sine, cosine);
    z[2 * pair] = radius * cosine;
    z[2 * pair + 1] = radius * sine;
  }
}

}  // namespace de
