#include <omp.h>

#include <algorithm>
#include <vector>

#include "run.h"

namespace de {

// Another thread is worth its waking from so many elements on.
constexpr int64_t PER_THREAD = 131072;

void run_norms(const NormsParams& p) {
  const auto norms = kernels().norms;
  const int64_t segments = p.segments(), items = p.batch * segments;
  std::vector<double> sums(items * SUMS);
  const int64_t wanted = std::min(items, p.batch * p.size() / PER_THREAD);
  const int threads = (int)std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), wanted));
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < items; ++i) norms(p, i / segments, i % segments, sums.data() + i * SUMS);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int s = 0; s < SUMS; ++s) {
      double total = 0.0;
      for (int64_t i = b * segments; i < (b + 1) * segments; ++i) total += sums[i * SUMS + s];
      p.out[b * SUMS + s] = total;
    }
}

}  // namespace de
