#include "kernels_half.h"

namespace de {

const HalfKernels half_emulated = half_kernels_of("emulated");

}  // namespace de
