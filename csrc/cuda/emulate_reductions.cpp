// The ops `norms` and `quantile` on a CPU, block by block, the threads of each as fibers (fibers.h).
#include "launch.h"
#include "reductions_grid.cuh"

namespace de {
namespace {

template <bool TWO>
void norms_blocks(const NormsParams& p) {
  const int64_t blocks = blocks_of(p), segments = p.segments();
  for (int64_t turn = 0; turn < blocks; ++turn)
    fibers::run(NORMS_THREADS, sizeof(NormsShared), [&](int thread, char* shared) {
      norms_block<TWO>(p, turn / segments, turn % segments, thread, *reinterpret_cast<NormsShared*>(shared),
                       part_of(p, turn));
    });
}

}  // namespace

void norms_on_host(const NormsParams& p) {
  if (p.y.data)
    norms_blocks<true>(p);
  else
    norms_blocks<false>(p);
  for (int64_t b = 0; p.segments() > 1 && b < p.batch; ++b)
    for (int k = 0; k < SUMS; ++k) merge_norms(p, b, k);
}

void quantile_on_host(const QuantileParams& p) {
  for (uint32_t b = 0; b < blocks_of(p); ++b)
    fibers::run(QUANTILE_THREADS, sizeof(QuantileShared), [&](int thread, char* shared) {
      quantile_block(p, b, thread, *reinterpret_cast<QuantileShared*>(shared));
    });
}

}  // namespace de
