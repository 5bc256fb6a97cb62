// The op `attention` on a GPU (attention.cuh). Compiled for ten sizes of head dim and two dtypes.
#include "attention.cuh"
#include "launch.cuh"
#include "launch.h"

namespace de {
namespace {

// The least number of blocks on a multiprocessor is said for ptxas: left to its own choice, it
// stopped at 80 registers for head dims up to 32 on sm_80 and spilled.
template <int STEPS, int MIN, bool BF16_>
__global__ void __launch_bounds__(Tile<STEPS>::WARPS * WARP, STEPS <= 4 ? 2 : 1)
    attention_kernel(const __grid_constant__ AttentionParams p,
                     const __grid_constant__ AttentionGrid grid) {
  extern __shared__ __align__(16) uint16_t rows[];
  attention_block<STEPS, MIN, BF16_>(p, grid, blockIdx.x, threadIdx.x, rows);
}

struct OnGpu {
  cudaStream_t stream;
  template <int STEPS, int MIN, bool BF16_>
  void run(const AttentionParams& p) const {
    const AttentionGrid grid = attention_grid<STEPS>(p);
    const int64_t blocks = grid.blocks * p.heads * p.batch;
    if (blocks > INT32_MAX)
      throw std::invalid_argument("a batch of " + std::to_string(p.batch) +
                                  " samples is too large for one launch; split it");
    const auto kernel = attention_kernel<STEPS, MIN, BF16_>;
    constexpr int shared = Tile<STEPS>::SHARED;
    check("attention",
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
    kernel<<<(uint32_t)blocks, grid.warps * WARP, shared, stream>>>(p, grid);
  }
};

}  // namespace

int64_t attention_workspace(const AttentionParams&) { return 0; }

void attention(const AttentionParams& p, void* stream, int device) {
  const OnDevice on("attention", device);
  choose(OnGpu{static_cast<cudaStream_t>(stream)}, p);
  check("attention", cudaGetLastError());
}

}  // namespace de
