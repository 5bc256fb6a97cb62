// What follows the sums of a product, a vector at a time.
#pragma once
#include "../winograd_window.h"
#include "activation.h"

namespace de {
namespace {

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

  DE_INLINE Float operator()(Float y) const { return (*this)(y, activation); }

  // Where the caller knows the activation as a constant.
  DE_INLINE Float operator()(Float y, int32_t activation) const {
    if (biased) y += bias;
    if (shifted) y += shift;
    y = activate(y, activation);
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
