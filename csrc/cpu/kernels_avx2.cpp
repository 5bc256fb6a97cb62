#include "kernels_isa.h"

namespace de {

const Kernels avx2 = kernels_of("avx2");

}  // namespace de
