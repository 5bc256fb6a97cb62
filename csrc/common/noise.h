// The ops `noise` and `brownian` for native code: normals of (seed of the sample, key, m, element), or
// weighted sums of them, into a tensor.
#pragma once
#include "step.h"

namespace de {

struct NoiseParams {
  int64_t batch, channels, pixels;  // as in StepParams
  View out;                         // float32
  const int64_t* seed;              // [batch]
  const int32_t* row;               // [batch] or null: each sample's row, -1 leaves the sample alone
  const int32_t* index;             // [rows, INDEX] with row: the row's own key is added to `key`
  int64_t rows;                     // for checks of `row`
  uint32_t key, m;
};

struct BrownianParams {
  int64_t batch, channels, pixels;  // as in StepParams
  int32_t draws;
  View out;                         // float32, draw m at out_draw * m
  int64_t out_draw;
  const int64_t* seed;              // [batch]
  const int32_t* row;               // [batch]
  const int32_t* terms;             // [rows, draws, HEADER + TERMS]
  const float* weight;              // [rows, draws, TERMS]
  int64_t rows;                     // for checks of `row`
};

}  // namespace de
