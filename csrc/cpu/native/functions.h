// Functions of a vector, each within 2 units of the last place of the exact value where multiplications and
// additions fuse; GELU within 3.
#pragma once
#include "../exp.h"

namespace de {
namespace {

DE_INLINE Float magnitude(Float x) { return (Float)((Int)x & 0x7FFFFFFF); }

// |size| with the sign of `sign`.
DE_INLINE Float with_sign(Float size, Float sign) {
  return (Float)(((Int)size & 0x7FFFFFFF) | ((Int)sign & INT32_MIN));
}

DE_INLINE bool any(Int mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#else
  int32_t all = 0;
  for (int i = 0; i < W; ++i) all |= mask[i];
  return all != 0;
#endif
}

DE_INLINE Float round_down(Float x) {
#if defined(__AVX512F__)
  return (Float)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
  return (Float)_mm256_floor_ps((__m256)x);
#else
  for (int i = 0; i < W; ++i) x[i] = std::floor(x[i]);
  return x;
#endif
}

// To the nearest whole number, and from half way to the even one.
DE_INLINE Float round_even(Float x) {
#if defined(__AVX512F__)
  return (Float)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
  return (Float)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  for (int i = 0; i < W; ++i) x[i] = std::nearbyint(x[i]);
  return x;
#endif
}

// a b - product, where `product` is a b rounded: what the rounding lost.
DE_INLINE Float lost(Float a, Float b, Float product) {
#if defined(__FMA__)
  return multiply_add(a, b, -product);
#else
  Float rest;
  for (int i = 0; i < W; ++i) rest[i] = (float)((double)a[i] * b[i] - product[i]);
  return rest;
#endif
}

// x + low = n ln 2 + r with |r| <= ln(2)/2: e^r - 1 and 2^n in two factors, as n reaches 128. x is within
// -87.5 and 89, or NaN.
struct Power {
  Float less_one, first, second;
  DE_INLINE Float value() const { return (less_one + 1.0f) * first * second; }
  // Times a, rounded once.
  DE_INLINE Float times(Float a) const { return multiply_add(a, less_one, a) * first * second; }
};

DE_INLINE Power power(Float x, Float low) {
  const Float magic = splat(12582912.0f);
  const Float shifted = multiply_add(x, splat(1.44269504f), magic), n = shifted - magic;
  Float r = multiply_add(n, splat(-0.693359375f), x);
  r = multiply_add(n, splat(2.12194440e-4f), r) + low;
  Float p = splat(1.9875691500e-4f);
  p = multiply_add(p, r, splat(1.3981999507e-3f));
  p = multiply_add(p, r, splat(8.3334519073e-3f));
  p = multiply_add(p, r, splat(4.1665795894e-2f));
  p = multiply_add(p, r, splat(1.6666665459e-1f));
  p = multiply_add(p, r, splat(5.0000001201e-1f));
  const Int whole = (Int)shifted - (Int)magic, half = whole >> 1;
  return {multiply_add(p * r, r, r), (Float)((half + 127) << 23), (Float)((whole - half + 127) << 23)};
}

// e^(x + low) for a small `low`; 0 below -87 and infinity above 88.7.
DE_INLINE Float exp_sum(Float x, Float low) {
  const Float y = power(at_most(at_least(x, splat(-87.0f)), splat(89.0f)), low).value();
  return x < splat(-87.0f) ? splat(0.0f) : y;
}

// log(2^n (1 + f)) for f within sqrt(1/2) - 1 and sqrt(2) - 1, as in Cephes' logf.
DE_INLINE Float log_series(Float n, Float f) {
  const Float z = f * f;
  Float p = splat(7.0376836292e-2f);
  p = multiply_add(p, f, splat(-1.1514610310e-1f));
  p = multiply_add(p, f, splat(1.1676998740e-1f));
  p = multiply_add(p, f, splat(-1.2420140846e-1f));
  p = multiply_add(p, f, splat(1.4249322787e-1f));
  p = multiply_add(p, f, splat(-1.6668057665e-1f));
  p = multiply_add(p, f, splat(2.0000714765e-1f));
  p = multiply_add(p, f, splat(-2.4999993993e-1f));
  p = multiply_add(p, f, splat(3.3333331174e-1f));
  Float y = multiply_add(n, splat(-2.12194440e-4f), p * f * z);
  y = multiply_add(z, splat(-0.5f), y) + f;
  return multiply_add(n, splat(0.693359375f), y);
}

DE_INLINE Float logarithm(Float x) {
  const Int tiny = x < splat(1.17549435e-38f);
  const Int bits = (Int)(tiny ? x * 8388608.0f : x);
  // The exponent counts from sqrt(1/2), whose bits are 0x3F3504F3.
  const Int n = (bits - 0x3F3504F3) >> 23;
  const Float f = (Float)(bits - (n << 23)) - 1.0f;
  const Float whole = __builtin_convertvector(n, Float) - (tiny ? splat(23.0f) : splat(0.0f));
  Float y = log_series(whole, f);
  y = x == splat(0.0f) ? splat(-INFINITY) : y;
  y = x < splat(0.0f) ? splat(NAN) : y;
  return x < splat(INFINITY) ? y : x < splat(0.0f) ? y : x;
}

// log(1 + e) for e within 0 and 1.
DE_INLINE Float log_one_more(Float e) {
  const Int large = e > splat(0.41421356f);
  return log_series(large ? splat(1.0f) : splat(0.0f), large ? multiply_add(e, splat(0.5f), splat(-0.5f)) : e);
}

constexpr float FAR = 3e6f;  // beyond it the reduction of sin and cos is the library's

// x = q pi/2 + r with |r| <= pi/4, for |x| <= FAR.
DE_INLINE Float quarter(Float x, Int& q) {
#if defined(__FMA__)
  const Float magic = splat(12582912.0f);
  const Float shifted = multiply_add(x, splat(0.636619772f), magic), n = shifted - magic;
  q = (Int)shifted - (Int)magic;
  Float r = multiply_add(n, splat(-0x1.921fb6p+0f), x);  // exact
  r = multiply_add(n, splat(0x1.777a5cp-25f), r);
  return multiply_add(n, splat(0x1.ee59dap-50f), r);
#else
  Float r;
  for (int i = 0; i < W; ++i) {
    const double n = std::nearbyint((double)x[i] * 0.63661977236758134308);
    q[i] = (int32_t)(std::fabs(n) < 4e6 ? n : 0);
    r[i] = (float)((x[i] - n * 0x1.921fb544p+0) - n * 0x1.0b4611a626331p-34);  // 33 bits, and the rest
  }
  return r;
#endif
}

// The sine of `turns` quarters and x: turns is 1 for the cosine.
DE_INLINE Float sine(Float x, int turns) {
  Int q;
  const Float r = quarter(x, q), z = r * r;
  q += turns;
  Float s = splat(-1.9515295891e-4f);
  s = multiply_add(s, z, splat(8.3321608736e-3f));
  s = multiply_add(s, z, splat(-1.6666654611e-1f));
  s = multiply_add(s * z, r, r);
  Float c = splat(2.443315711809948e-5f);
  c = multiply_add(c, z, splat(-1.388731625493765e-3f));
  c = multiply_add(c, z, splat(4.166664568298827e-2f));
  c = multiply_add(c * z, z, multiply_add(z, splat(-0.5f), splat(1.0f)));
  const Float y = (Float)((Int)((q & 1) != 0 ? c : s) ^ ((q & 2) << 30));
  const Int beyond = ~(magnitude(x) <= splat(FAR));
  if (!any(beyond)) return y;
  Float exact = y;
  for (int i = 0; i < W; ++i)
    if (beyond[i]) exact[i] = turns ? std::cos(x[i]) : std::sin(x[i]);
  return exact;
}

// Below 0.625 a polynomial, as in Cephes' tanhf; above it 1 - 2 / (e^2x + 1).
DE_INLINE Float tangent(Float x) {
  const Float size = magnitude(x), z = x * x;
  Float p = splat(-5.70498872745e-3f);
  p = multiply_add(p, z, splat(2.06390887954e-2f));
  p = multiply_add(p, z, splat(-5.37397155531e-2f));
  p = multiply_add(p, z, splat(1.33314422036e-1f));
  p = multiply_add(p, z, splat(-3.33332819422e-1f));
  const Float low = multiply_add(p * z, x, x);
  const Float far = splat(1.0f) - 2.0f / (exp_sum(at_most(size + size, splat(40.0f)), splat(0.0f)) + 1.0f);
  return size < splat(0.625f) ? low : with_sign(far, x);
}

DE_INLINE Float logistic(Float x) {
  return x < splat(-87.0f) ? splat(0.0f) : 1.0f / one_and_exp_of_minus(x);
}

// x tanh(log(1 + n)) with n = e^x is x g, or for x < 0 x n h, where g = 1 - 2 / d, h = 1 - n (n + 1) / d and
// d = n^2 + 2 n + 2.
DE_INLINE Float mish(Float x) {
  const Power e = power(at_most(at_least(x, splat(-87.0f)), splat(40.0f)), splat(0.0f));
  const Float n = e.value(), d = multiply_add(n, n + 2.0f, splat(2.0f));
  const Int above = x > splat(0.0f);
  const Float y = x * (1.0f - (above ? splat(2.0f) : multiply_add(n, n, n)) / d);
  return above ? y : e.times(y);
}

// N. Juffa's: a polynomial in x, or 1 - e^p(|x|).
DE_INLINE Float error_function(Float x) {
  const Float t = at_most(magnitude(x), splat(4.5f)), z = t * t;
  Float r = multiply_add(splat(-1.72853470e-5f), t, splat(3.83197126e-4f));
  const Float u = multiply_add(splat(-3.88396438e-3f), t, splat(2.42546219e-2f));
  r = multiply_add(r, z, u);
  r = multiply_add(r, t, splat(-1.06777877e-1f));
  r = multiply_add(r, t, splat(-6.34846687e-1f));
  r = multiply_add(r, t, splat(-1.28717512e-1f));
  r = multiply_add(r, t, -t);
  const Float far = with_sign(1.0f - exp_sum(r, splat(0.0f)), x);
  Float p = splat(-5.96761703e-4f);
  p = multiply_add(p, z, splat(4.99119423e-3f));
  p = multiply_add(p, z, splat(-2.67681349e-2f));
  p = multiply_add(p, z, splat(1.12819925e-1f));
  p = multiply_add(p, z, splat(-3.76125336e-1f));
  p = multiply_add(p, z, splat(1.28379166e-1f));
  return t > splat(0.927734375f) ? far : multiply_add(p, x, x);
}

// t / (t + k) to the last place.
DE_INLINE Float share(Float t, Float k) {
  const Float sum = t + k, inverse = 1.0f / sum, v = t * inverse;
  const Float part = sum - t, rest = (t - (sum - part)) + (k - part);  // t + k = sum + rest
  return multiply_add(multiply_add(-v, rest, multiply_add(-v, sum, t)), inverse, v);
}

// x Phi(x), Phi being the normal distribution: max(x, 0) - v P(v) e^(-x^2/2) with v = |x| / (|x| + k), where P is
// fitted to 5e-9. Values of negative x keep their digits.
DE_INLINE Float gelu(Float x) {
  const Float t = at_most(magnitude(x), splat(13.3f)), v = share(t, splat(2.25f));
  Float p = splat(-9.206639975e-02f);
  for (float next : {3.522382081e-01f, -4.920114279e-01f, 3.534865677e-01f, -2.297394127e-01f, 4.822495580e-02f,
                     9.309588373e-02f, 2.020575851e-01f, -6.670063734e-02f, -8.946438432e-01f, 1.125f})
    p = multiply_add(p, v, splat(next));
  const Float half = t * -0.5f, square = half * t;
  const Float tail = power(at_least(square, splat(-87.0f)), lost(half, t, square)).times(v * p);
  const Float part = x > splat(0.0f) ? x : x * 0.0f;  // NaN where x is -infinity, as torch has it
  return square < splat(-87.0f) ? part : part - tail;
}

// x / (1 + e^-w), w = 2 sqrt(2/pi) (x + 0.044715 x^3) to twice the digits: e^-w has its relative error from
// w's absolute one. Below -10 it is less than 10^-36, and 0 here.
DE_INLINE Float gelu_tanh(Float x) {
  const Float inside = at_most(at_least(x, splat(-10.0f)), splat(10.0f));
  const Float a = splat(0x1.9884533d43651p+0f), b = splat(0x1.2444f2a4d8b4bp-4f);
  const float a_rest = (float)(0x1.9884533d43651p+0 - (double)(float)0x1.9884533d43651p+0);
  const float b_rest = (float)(0x1.2444f2a4d8b4bp-4 - (double)(float)0x1.2444f2a4d8b4bp-4);
  const Float z = inside * inside, cubic = b * z;
  Float low = lost(b, z, cubic) + multiply_add(b, lost(inside, inside, z), multiply_add(splat(b_rest), z, splat(a_rest)));
  const Float factor = a + cubic, rest = factor - a;
  low = low + (a - (factor - rest)) + (cubic - rest);
  const Float w = -inside * factor;
  const Float sum = one_and_exp(w, lost(-inside, factor, w) - inside * low);
  return x / (x < splat(-10.0f) ? splat(INFINITY) : sum);
}

}  // namespace
}  // namespace de
