// The op `noise` on a GPU.
#include "grid.cuh"
#include "launch.cuh"
#include "launch.h"
#include "noise_group.cuh"

namespace de {
namespace {

template <bool VEC>
__global__ void __launch_bounds__(THREADS)
    noise_kernel(const __grid_constant__ NoiseParams p, const __grid_constant__ Grid g) {
  noise_thread<VEC>(p, g, blockIdx.x / g.blocks, blockIdx.x % g.blocks, threadIdx.x);
}

}  // namespace

void noise(const NoiseParams& p, void* stream, int device) {
  if (p.batch == 0) return;
  const OnDevice on("noise", device);
  const Grid g = grid_of(p, multiprocessors_of("noise", device));
  const uint32_t blocks = g.blocks * (uint32_t)p.batch;
  const auto kernel = all_wide(p) ? noise_kernel<true> : noise_kernel<false>;
  kernel<<<blocks, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(p, g);
  check("noise", cudaGetLastError());
}

}  // namespace de
