// The op `brownian` on a GPU.
#include "brownian_group.cuh"
#include "grid.cuh"
#include "launch.cuh"
#include "launch.h"

namespace de {
namespace {

template <bool VEC>
__global__ void __launch_bounds__(THREADS)
    brownian_kernel(const __grid_constant__ BrownianParams p, const __grid_constant__ Grid g) {
  const uint32_t sample = blockIdx.x / g.blocks;
  brownian_thread<VEC>(p, g, sample / p.draws, (int)(sample % p.draws), blockIdx.x % g.blocks,
                       threadIdx.x);
}

}  // namespace

void brownian(const BrownianParams& p, void* stream, int device) {
  if (p.batch == 0) return;
  const OnDevice on("brownian", device);
  const Grid g = grid_of(p, multiprocessors_of("brownian", device));
  const uint32_t blocks = g.blocks * (uint32_t)(p.batch * p.draws);
  const auto kernel = all_wide(p) ? brownian_kernel<true> : brownian_kernel<false>;
  kernel<<<blocks, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(p, g);
  check("brownian", cudaGetLastError());
}

}  // namespace de
