// The op `norms` on a GPU: a block a segment, and where a sample has several another launch adds them.
#include "launch.cuh"
#include "launch.h"
#include "reductions_grid.cuh"

namespace de {
namespace {

template <bool TWO>
__global__ void __launch_bounds__(NORMS_THREADS) norms_kernel(const __grid_constant__ NormsParams p) {
  __shared__ NormsShared shared;
  const int64_t turn = blockIdx.x, segments = p.segments();
  norms_block<TWO>(p, turn / segments, turn % segments, threadIdx.x, shared, part_of(p, turn));
}

template <int SUMS_>
__global__ void __launch_bounds__(WARP) merge_kernel(const __grid_constant__ NormsParams p) {
  if (threadIdx.x < SUMS_) merge_norms(p, blockIdx.x, threadIdx.x);
}

}  // namespace

int64_t norms_workspace(const NormsParams& p) { return workspace_of(p); }

void norms(const NormsParams& p, void* stream, int device) {
  const uint32_t blocks = blocks_of(p);
  const OnDevice on("norms", device);
  const auto kernel = p.y.data ? norms_kernel<true> : norms_kernel<false>;
  kernel<<<blocks, NORMS_THREADS, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check("norms", cudaGetLastError());
  if (p.segments() == 1) return;
  merge_kernel<SUMS><<<(uint32_t)p.batch, WARP, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check("norms", cudaGetLastError());
}

}  // namespace de
