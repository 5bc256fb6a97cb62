#include "kernels_isa.h"

namespace de {

const Kernels scalar = kernels_of("scalar");

}  // namespace de
