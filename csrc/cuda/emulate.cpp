// The kernels' code on a CPU, block by block and thread by thread: tests check indexing, strides,
// masks and the hand-over of rows with it where there is no GPU. Slow, and only for tests.
#include "brownian_group.cuh"
#include "grid.cuh"
#include "launch.h"
#include "noise_group.cuh"
#include "step_group.cuh"

namespace de {
namespace {

// The body of step_kernel; a loop over the threads stands for each stretch between barriers.
template <int K, bool VEC, bool EXTRAS>
void step_block(const StepParams& p, const Grid& g, int64_t b, int block) {
  Row row;
  const int64_t r = p.row[b];
  if (r < 0) return;
  for (int thread = 0; thread < THREADS; ++thread) {
    load_row(p, row, b, r, thread);
    if (block == 0) write_labels(p, b, r, thread);
  }
  leave_row(p, g, b, row.index[NEXT]);
  for (int thread = 0; thread < THREADS; ++thread)
    step_thread<K, VEC, EXTRAS>(p, g, row, b, block, thread);
}

struct OnHost {
  template <int K, bool VEC, bool EXTRAS>
  void run(const StepParams& p, const Grid& g) const {
    for (int64_t b = 0; b < p.batch; ++b)
      for (int block = 0; block < g.blocks; ++block) step_block<K, VEC, EXTRAS>(p, g, b, block);
  }
};

template <bool VEC>
void noise_blocks(const NoiseParams& p, const Grid& g) {
  for (int64_t b = 0; b < p.batch; ++b)
    for (int block = 0; block < g.blocks; ++block)
      for (int thread = 0; thread < THREADS; ++thread) noise_thread<VEC>(p, g, b, block, thread);
}

template <bool VEC>
void brownian_blocks(const BrownianParams& p, const Grid& g) {
  for (int64_t b = 0; b < p.batch; ++b)
    for (int draw = 0; draw < p.draws; ++draw)
      for (int block = 0; block < g.blocks; ++block)
        for (int thread = 0; thread < THREADS; ++thread)
          brownian_thread<VEC>(p, g, b, draw, block, thread);
}

}  // namespace

void step_on_host(const StepParams& p, int multiprocessors) {
  choose(OnHost{}, p, multiprocessors);
}

void noise_on_host(const NoiseParams& p, int multiprocessors) {
  if (p.batch == 0) return;
  const Grid g = grid_of(p, multiprocessors);
  if (all_wide(p))
    noise_blocks<true>(p, g);
  else
    noise_blocks<false>(p, g);
}

void brownian_on_host(const BrownianParams& p, int multiprocessors) {
  if (p.batch == 0) return;
  const Grid g = grid_of(p, multiprocessors);
  if (all_wide(p))
    brownian_blocks<true>(p, g);
  else
    brownian_blocks<false>(p, g);
}

}  // namespace de
