// The functions that follow a layer, a vector at a time.
#pragma once
#include <type_traits>

#include "functions.h"
#include "params.h"

namespace de {
namespace {

DE_INLINE Float activate(Float x, int32_t activation) {
  switch (activation) {
    case SILU: return silu(x);
    case GELU: return gelu(x);
    case GELU_TANH: return gelu_tanh(x);
    case RELU: return at_least(x, Float{});
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
    default: return run(std::integral_constant<int32_t, NO_ACTIVATION>());
  }
}

}  // namespace
}  // namespace de
