// The op `quantile` on a GPU: a block a sample.
#include "launch.cuh"
#include "launch.h"
#include "reductions_grid.cuh"

namespace de {
namespace {

template <int THREADS_>
__global__ void __launch_bounds__(THREADS_, 1) quantile_kernel(const __grid_constant__ QuantileParams p) {
  __shared__ QuantileShared shared;
  quantile_block(p, blockIdx.x, threadIdx.x, shared);
}

}  // namespace

void quantile(const QuantileParams& p, void* stream, int device) {
  const uint32_t blocks = blocks_of(p);
  const OnDevice on("quantile", device);
  quantile_kernel<QUANTILE_THREADS><<<blocks, QUANTILE_THREADS, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check("quantile", cudaGetLastError());
}

}  // namespace de
