#include "kernels_half.h"

namespace de {

const HalfKernels half_amx = half_kernels_of("amx");

}  // namespace de
