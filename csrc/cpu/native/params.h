// What the operations of a recorded network are given. Floats throughout. Strides count elements; the last
// axis (channels, features) lies together.
#pragma once
#include <cstdint>

namespace de {

// Rows of values: row i of sample b is at data + b * batch + i * row.
struct Rows {
  float* data = nullptr;
  int64_t batch = 0, row = 0;
};

enum Activation : int32_t { NO_ACTIVATION, SILU, GELU, GELU_TANH, RELU };

// What becomes of the sums of a product before they are stored, n being the column:
//   out[b][i][n] = gate[b][n] * activation(sum + bias[n] + shift[b][n]) + residual[b][i][n]
// Each is absent where its pointer is null. `out` may be the memory of `residual`.
struct Epilogue {
  const float* bias = nullptr;
  const float* shift = nullptr;
  int64_t shift_batch = 0;
  int32_t activation = NO_ACTIVATION;
  const float* gate = nullptr;
  int64_t gate_batch = 0;
  Rows residual;
};

}  // namespace de
