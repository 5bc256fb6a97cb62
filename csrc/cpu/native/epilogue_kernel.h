// What follows the sums of a product, a vector at a time.
#pragma once
#include "../exp.h"
#include "../winograd_window.h"
#include "params.h"

namespace de {
namespace {

// x (1 + erf(x / sqrt(2))) / 2. erf is within one unit of the last place: a polynomial in z^2 near 0, one in
// |z| under the exponential beyond. 1 - erf is 0 in float32 from 4 on.
DE_INLINE Float gelu(Float x) {
  const Float z = x * 0.70710678118f, t = at_most(at_least(z, -z), splat(4.0f)), s = t * t;
  Float inner = splat(-5.96761703e-4f);
  inner = multiply_add(inner, s, splat(4.99119423e-3f));
  inner = multiply_add(inner, s, splat(-2.67681349e-2f));
  inner = multiply_add(inner, s, splat(1.12819925e-1f));
  inner = multiply_add(inner, s, splat(-3.76125336e-1f));
  inner = multiply_add(inner, s, splat(1.28379166e-1f));
  inner = multiply_add(inner, z, z);
  const Float low = multiply_add(splat(-3.88396438e-3f), t, splat(2.42546219e-2f));
  Float outer = multiply_add(splat(-1.72853470e-5f), t, splat(3.83197126e-4f));
  outer = multiply_add(outer, s, low);
  outer = multiply_add(outer, t, splat(-1.06777877e-1f));
  outer = multiply_add(outer, t, splat(-6.34846687e-1f));
  outer = multiply_add(outer, t, splat(-1.28717512e-1f));
  outer = 1.0f - exp_fused(multiply_add(outer, t, -t));
  outer = z < splat(0.0f) ? -outer : outer;
  return 0.5f * x * (1.0f + (t > splat(0.927734375f) ? outer : inner));
}

// x / (1 + e^(-2 a)), which is x (1 + tanh a) / 2.
DE_INLINE Float gelu_tanh(Float x) {
  const Float cube = x * x * x;
  const Float a = multiply_add(cube, splat(0.044715f), x) * -1.5957691216f;
  return x / (1.0f + exp_fused(a));
}

DE_INLINE Float activate(Float x, int32_t activation) {
  switch (activation) {
    case SILU: return silu(x);
    case GELU: return gelu(x);
    case GELU_TANH: return gelu_tanh(x);
    case RELU: return at_least(x, Float{});
    case QUICK_GELU: return x / (1.0f + exp_fused(x * -1.702f));
    default: return x;
  }
}

DE_INLINE Float load_some(const float* p, int n) { return n == W ? load<Float>(p) : load_lanes(p, 0, n); }

// An epilogue but for its residual, of n columns from `column` on of sample b.
struct Followers {
  Float bias = {}, shift = {}, gate = {};
  const bool biased, shifted, gated;
  const int32_t activation;

  DE_INLINE Followers(const Epilogue& e, int64_t b, int64_t column, int n)
      : biased(e.bias), shifted(e.shift), gated(e.gate), activation(e.activation) {
    if (biased) bias = load_some(e.bias + column, n);
    if (shifted) shift = load_some(e.shift + b * e.shift_batch + column, n);
    if (gated) gate = load_some(e.gate + b * e.gate_batch + column, n);
  }

  DE_INLINE Float operator()(Float y) const {
    if (biased) y += bias;
    if (shifted) y += shift;
    if (activation != NO_ACTIVATION) y = activate(y, activation);
    return gated ? y * gate : y;
  }

  // One after the other: this is large code, and many values need it once.
  __attribute__((noinline)) void each(Float* y, int count) const {
    for (int i = 0; i < count; ++i) y[i] = (*this)(y[i]);
  }
};

// The epilogue of `count` sums, which are columns [column, column + count) of row i of sample b.
DE_INLINE void finish_row(const Epilogue& e, const Rows& out, int64_t b, int64_t i, int64_t column,
                          int64_t count, const float* sums) {
  for (int64_t c = 0; c < count; c += W) {
    const int n = (int)std::min<int64_t>(W, count - c);
    const int64_t at = column + c;
    Float y = Followers(e, b, at, n)(load<Float>(sums + c));
    if (e.residual.data) y += load_some(e.residual.data + b * e.residual.batch + i * e.residual.row + at, n);
    store_lanes(out.data + b * out.batch + i * out.row + at, y, n);
  }
}

}  // namespace
}  // namespace de
