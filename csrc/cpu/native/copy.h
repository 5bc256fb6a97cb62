// Elements from one place and order to another: permutes, parts of a concatenation, slices, padding.
#pragma once
#include <array>

#include "task.h"

namespace de {

// out[i] = x[i - before] where 0 <= i - before < inside in every axis, `value` elsewhere. Strides count
// elements and may be 0 or negative in x; out has no element twice. An axis that is not used has size 1.
struct CopyParams {
  static constexpr int AXES = 6;
  using Axes = std::array<int64_t, AXES>;
  const float* x = nullptr;
  float* out = nullptr;
  Axes sizes{1, 1, 1, 1, 1, 1};     // of out
  Axes inside{-1, -1, -1, -1, -1, -1};  // sizes of x, where -1 is that of out
  Axes before{};
  Axes x_strides{}, out_strides{};
  float value = 0;
};

Task copy_task(const CopyParams& p, int64_t threads);

}  // namespace de
