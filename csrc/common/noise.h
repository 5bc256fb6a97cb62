// The op `noise` for native code: normals of (seed of the sample, key, m, element) into a tensor.
#pragma once
#include "step.h"

namespace de {

struct NoiseParams {
  int64_t batch, channels, pixels;  // as in StepParams
  View out;                         // float32
  const int64_t* seed;              // [batch]
  uint32_t key, m;
};

}  // namespace de
