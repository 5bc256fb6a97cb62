// The op `step` on a GPU: one launch for a row of every sample. Blocks of THREADS threads, several
// per sample; a thread updates WIDTH elements at a time (step_group.cuh).
//
// Compiled for each number of slots (arrays in registers need it), for wide accesses with and
// without normals and masks, and for other strides: 15 kernels. Everything else is data.
#include "grid.cuh"
#include "launch.cuh"
#include "launch.h"
#include "step_group.cuh"

namespace de {
namespace {

// Five blocks on a multiprocessor, so up to 96 registers a thread. Left to its own choice, ptxas
// stopped at 64 for one of these kernels on sm_80 and spilled.
template <int K, bool VEC, bool EXTRAS>
__global__ void __launch_bounds__(THREADS, 5)
    step_kernel(const __grid_constant__ StepParams p, const __grid_constant__ Grid g) {
  __shared__ Row row;
  const int64_t b = blockIdx.x / g.blocks;
  const int block = blockIdx.x % g.blocks, thread = threadIdx.x;
  // volatile: another block of this launch may write it, after this read.
  const int64_t r = *static_cast<const volatile int32_t*>(p.row + b);
  if (r < 0) return;
  load_row(p, row, b, r, thread);
  if (block == 0) write_labels(p, b, r, thread);
  __syncthreads();
  if (thread == 0) leave_row(p, g, b, row.index[NEXT]);
  step_thread<K, VEC, EXTRAS>(p, g, row, b, block, thread);
}

struct OnGpu {
  cudaStream_t stream;
  template <int K, bool VEC, bool EXTRAS>
  void run(const StepParams& p, const Grid& g) const {
    const uint32_t blocks = g.blocks * (uint32_t)p.batch;
    step_kernel<K, VEC, EXTRAS><<<blocks, THREADS, 0, stream>>>(p, g);
  }
};

}  // namespace

void step(const StepParams& p, void* stream, int device) {
  const OnDevice on("step", device);
  choose(OnGpu{static_cast<cudaStream_t>(stream)}, p, multiprocessors_of("step", device));
  check("step", cudaGetLastError());
}

}  // namespace de
