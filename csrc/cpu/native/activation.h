// The functions between layers, a vector at a time.
#pragma once
#include <type_traits>

#include "../exp.h"
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

// Calls run with the activation as a constant.
template <class Run>
DE_INLINE void with_activation(int32_t activation, Run run) {
  switch (activation) {
    case SILU: return run(std::integral_constant<int32_t, SILU>());
    case GELU: return run(std::integral_constant<int32_t, GELU>());
    case GELU_TANH: return run(std::integral_constant<int32_t, GELU_TANH>());
    case RELU: return run(std::integral_constant<int32_t, RELU>());
    case QUICK_GELU: return run(std::integral_constant<int32_t, QUICK_GELU>());
    default: return run(std::integral_constant<int32_t, NO_ACTIVATION>());
  }
}

}  // namespace
}  // namespace de
