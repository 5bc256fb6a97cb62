// What every instruction set offers.
#pragma once
#include "noise.h"
#include "step.h"

namespace de {

// Elements [first, last) of samples [b0, b1).
struct Kernels {
  const char* isa;
  void (*step)(const StepParams&, int64_t b0, int64_t b1, int64_t first, int64_t last);
  void (*noise)(const NoiseParams&, int64_t b0, int64_t b1, int64_t first, int64_t last);
  // Elements first ... first + count - 1 of one sample.
  void (*normals)(uint64_t seed, uint32_t key, uint32_t m, int64_t first, int64_t count, float* out);
};

extern const Kernels scalar;
#ifdef DE_X86
extern const Kernels avx2, avx512;
#endif

}  // namespace de
