#include "kernels_isa.h"

namespace de {

const Kernels avx512 = kernels_of("avx512");

}  // namespace de
