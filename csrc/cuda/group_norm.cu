// The op `group_norm` on a GPU: one launch where a block holds a group, two for larger maps.
#include "group_norm_grid.h"
#include "launch.cuh"
#include "launch.h"

namespace de {
namespace {

template <int N, bool MOMENTS, bool APPLY>
__global__ void __launch_bounds__(TEAM)
    group_norm_kernel(const __grid_constant__ GroupNormParams p, const __grid_constant__ NormGrid g) {
  extern __shared__ float coefficients[];
  __shared__ NormShared shared;
  Threads<NormThread> team;
  norm_block<N, MOMENTS, APPLY>(team, shared, coefficients, p, g, blockIdx.x);
}

struct OnGpu {
  cudaStream_t stream;
  template <int N, bool MOMENTS, bool APPLY>
  void run(const GroupNormParams& p, const NormGrid& g) const {
    const uint32_t blocks = (uint32_t)(p.batch * p.groups * g.parts);
    const size_t bytes = APPLY ? 2 * g.size * sizeof(float) : 0;
    group_norm_kernel<N, MOMENTS, APPLY><<<blocks, TEAM, bytes, stream>>>(p, g);
  }
};

}  // namespace

void group_norm(const GroupNormParams& p, void* stream, int device) {
  const OnDevice on("group_norm", device);
  launch_norm(OnGpu{static_cast<cudaStream_t>(stream)}, p);
  check("group_norm", cudaGetLastError());
}

int64_t group_norm_workspace(const GroupNormParams& p) { return norm_workspace(p); }

}  // namespace de
