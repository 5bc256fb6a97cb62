// The op `group_norm` on a GPU: one launch, or two for large groups (group_norm.cuh). Compiled for four
// widths of access; dtypes and layouts are data.
#include "launch.cuh"
#include "launch.h"
#include "norm_grid.cuh"

namespace de {
namespace {

template <int WIDTH_>
__global__ void __launch_bounds__(NORM_THREADS, 2)
    norm_small_kernel(const __grid_constant__ GroupNormParams p, const __grid_constant__ NormGrid g) {
  __shared__ NormShared shared;
  extern __shared__ float kept[];
  norm_small<WIDTH_>(p, g, blockIdx.x, threadIdx.x, shared, kept);
}

template <int WIDTH_>
__global__ void __launch_bounds__(NORM_THREADS, 2)
    norm_moments_kernel(const __grid_constant__ GroupNormParams p,
                        const __grid_constant__ NormGrid g) {
  __shared__ NormShared shared;
  extern __shared__ float kept[];
  norm_moments<WIDTH_>(p, g, blockIdx.x, threadIdx.x, shared, kept);
}

template <int WIDTH_>
__global__ void __launch_bounds__(NORM_THREADS, 2)
    norm_apply_kernel(const __grid_constant__ GroupNormParams p, const __grid_constant__ NormGrid g) {
  __shared__ NormShared shared;
  norm_apply<WIDTH_>(p, g, blockIdx.x, threadIdx.x, shared);
}

using Kernel = void (*)(const GroupNormParams, const NormGrid);

struct OnGpu {
  cudaStream_t stream;

  void launch(Kernel kernel, const GroupNormParams& p, const NormGrid& g, size_t kept) const {
    check("group_norm", cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)kept));
    kernel<<<blocks_of(p, g), NORM_THREADS, kept, stream>>>(p, g);
    check("group_norm", cudaGetLastError());
  }
  template <int WIDTH_>
  void small(const GroupNormParams& p, const NormGrid& g) const {
    launch(norm_small_kernel<WIDTH_>, p, g, kept_of(g));
  }
  template <int WIDTH_>
  void moments(const GroupNormParams& p, const NormGrid& g) const {
    launch(norm_moments_kernel<WIDTH_>, p, g, kept_of(g));
  }
  template <int WIDTH_>
  void apply(const GroupNormParams& p, const NormGrid& g) const {
    launch(norm_apply_kernel<WIDTH_>, p, g, 0);
  }
};

}  // namespace

int64_t group_norm_workspace(const GroupNormParams& p) { return workspace_of(p, norm_grid(p)); }

void group_norm(const GroupNormParams& p, void* stream, int device) {
  const OnDevice on("group_norm", device);
  choose(OnGpu{static_cast<cudaStream_t>(stream)}, p);
}

}  // namespace de
