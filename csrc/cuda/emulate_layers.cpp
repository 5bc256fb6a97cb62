// The layers' kernels on a CPU, block by block, for tests: emulate.cpp does the same for the step.
#include "group_norm_grid.h"
#include "launch.h"

namespace de {
namespace {

struct OnHost {
  template <int N, bool MOMENTS, bool APPLY>
  void run(const GroupNormParams& p, const NormGrid& g) const {
    std::vector<float> coefficients(2 * g.size);
    NormShared shared;
    for (int64_t block = 0; block < p.batch * p.groups * g.parts; ++block) {
      Played<NormThread> team(TEAM);
      norm_block<N, MOMENTS, APPLY>(team, shared, coefficients.data(), p, g, block);
    }
  }
};

}  // namespace

void group_norm_on_host(const GroupNormParams& p) { launch_norm(OnHost{}, p); }

}  // namespace de
