// The group_norm on a CPU, block by block, the threads of each as fibers (fibers.h).
#include "launch.h"
#include "norm_grid.cuh"

namespace de {
namespace {

struct OnHost {
  template <int WIDTH_>
  void small(const GroupNormParams& p, const NormGrid& g) const {
    blocks(p, g, kept_of(g), norm_small<WIDTH_>);
  }
  template <int WIDTH_>
  void moments(const GroupNormParams& p, const NormGrid& g) const {
    blocks(p, g, kept_of(g), norm_moments<WIDTH_>);
  }
  template <int WIDTH_>
  void apply(const GroupNormParams& p, const NormGrid& g) const {
    const auto without = [](const GroupNormParams& p, const NormGrid& g, int64_t turn, int thread,
                            NormShared& s, float*) { norm_apply<WIDTH_>(p, g, turn, thread, s); };
    blocks(p, g, 0, without);
  }
  template <class Body>
  static void blocks(const GroupNormParams& p, const NormGrid& g, size_t kept, Body body) {
    for (uint32_t turn = 0; turn < blocks_of(p, g); ++turn)
      fibers::run(NORM_THREADS, sizeof(NormShared) + kept, [&](int thread, char* shared) {
        float* floats = reinterpret_cast<float*>(shared + sizeof(NormShared));
        body(p, g, turn, thread, *reinterpret_cast<NormShared*>(shared), floats);
      });
  }
};

}  // namespace

void group_norm_on_host(const GroupNormParams& p) { choose(OnHost{}, p); }

}  // namespace de
