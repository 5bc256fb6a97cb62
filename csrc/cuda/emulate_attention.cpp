// The attention on a CPU, block by block, the threads of each as fibers (fibers.h). For tests.
#include "attention.cuh"
#include "launch.h"

namespace de {
namespace {

struct OnHost {
  template <int STEPS, int MIN, bool BF16_>
  void run(const AttentionParams& p) const {
    const AttentionGrid grid = attention_grid<STEPS>(p);
    for (int64_t turn = 0; turn < grid.blocks * p.heads * p.batch; ++turn)
      fibers::run(grid.warps * WARP, Tile<STEPS>::SHARED, [&](int thread, char* shared) {
        uint16_t* rows = reinterpret_cast<uint16_t*>(shared);
        attention_block<STEPS, MIN, BF16_>(p, grid, turn, thread, rows);
      });
  }
};

}  // namespace

void attention_on_host(const AttentionParams& p) { choose(OnHost{}, p); }

}  // namespace de
