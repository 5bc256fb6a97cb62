#include "kernels_half.h"

namespace de {

const HalfKernels half_avx512_bf16 = half_kernels_of("avx512_bf16");

}  // namespace de
