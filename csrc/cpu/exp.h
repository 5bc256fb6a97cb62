// exp of a vector with fused multiply-adds, for the layers' kernels. The step's own in random.h keeps to
// the bits that all backends share.
#pragma once
#include "vector.h"

namespace de {
namespace {

// e^r - 1 for |r| <= ln(2)/2.
DE_INLINE Float exp_less_one_series(Float r) {
  Float p = splat(1.9875691500e-4f);
  p = multiply_add(p, r, splat(1.3981999507e-3f));
  p = multiply_add(p, r, splat(8.3334519073e-3f));
  p = multiply_add(p, r, splat(4.1665795894e-2f));
  p = multiply_add(p, r, splat(1.6666665459e-1f));
  p = multiply_add(p, r, splat(5.0000001201e-1f));
  return multiply_add(p * r, r, r);
}

// e^x = 2^n e^r with |r| <= ln(2)/2: a polynomial of degree 6 in r, then n is added to the exponent.
// Error below 1.5 units of the last place, checked against double on every 97th float. Results
// below 2^-126 are 0, because numbers smaller than that would slow the arithmetic after it; above
// 88.72 it is infinity, and NaN stays.
DE_INLINE Float exp_fused(Float x) {
  const Float magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const Float inside = at_most(at_least(x, splat(-87.5f)), splat(89.0f));
  const Float shifted = multiply_add(inside, splat(1.44269504f), magic);
  const Float n = shifted - magic;
  Float r = multiply_add(n, splat(-0.693359375f), inside);  // ln 2 in two parts, the first short
  r = multiply_add(n, splat(2.12194440e-4f), r);
  // 2^n in two halves: n reaches 128, which no exponent holds.
  const Int whole = (Int)shifted - (Int)magic, half = whole >> 1;
  const Float first = (Float)((half + 127) << 23), second = (Float)((whole - half + 127) << 23);
  const Float y = (exp_less_one_series(r) + 1.0f) * first * second;
  return x < splat(-87.33654f) ? splat(0.0f) : y;
}

// 1 + e^x = 2^n + (2^n (e^r - 1) + 1) for x within -87 and 88: the inner sum is the smaller one, whose rounding
// counts less. `low`, where it is given, is what x lacks.
template <class... Low>
DE_INLINE Float one_and_exp(Float x, Low... low) {
  const Float magic = splat(12582912.0f);
  const Float shifted = multiply_add(x, splat(1.44269504f), magic), n = shifted - magic;
  const Float r = (multiply_add(n, splat(2.12194440e-4f), multiply_add(n, splat(-0.693359375f), x)) + ... + low);
  // n is in -126 ... 127.
  const Float scale = (Float)(((Int)shifted - (Int)magic + 127) << 23);
  return scale + multiply_add(exp_less_one_series(r), scale, splat(1.0f));
}

// 1 + e^-y. Beyond -88, where e^-y would overflow, it stays 10^38.
DE_INLINE Float one_and_exp_of_minus(Float y) { return one_and_exp(at_most(at_least(-y, splat(-87.0f)), splat(88.0f))); }

// y / (1 + e^-y)
DE_INLINE Float silu(Float y) { return y / one_and_exp_of_minus(y); }

}  // namespace
}  // namespace de
