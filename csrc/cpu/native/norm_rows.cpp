#include "norm_rows.h"

#include <algorithm>
#include <stdexcept>

#include "../run.h"

namespace de {

// Floats of an item at least: what it costs to be handed one is then a hundredth of its time.
constexpr int64_t GRAIN = 8192;

template <class Params>
static void check(const Params& p, const char* name) {
  if (p.batch < 1 || p.rows < 1 || p.channels < 1)
    throw std::invalid_argument(std::string(name) + " needs samples, rows and channels");
}

// Calls run(RowRange, scratch) for ranges of all rows, a few for each thread.
template <class Params, class Run>
static Task ranges(const Params& p, int64_t threads, Run run) {
  const int64_t all = p.batch * p.rows, fewest = std::max<int64_t>(1, GRAIN / p.channels);
  const int64_t count = std::max(fewest, (all + 4 * threads - 1) / (4 * threads));
  Task task;
  task.items = (all + count - 1) / count;
  task.work = all * p.channels;
  task.run = [=](int64_t item, float* scratch) {
    run(RowRange{item * count, std::min((item + 1) * count, all)}, scratch);
  };
  return task;
}

Task norm_rows_task(const NormRowsParams& p, int64_t threads) {
  check(p, "norm_rows");
  const auto norm = kernels().norm_rows;
  Task task = ranges(p, threads, [=](RowRange range, float* scratch) { norm(p, range, scratch); });
  task.scratch = 2 * p.channels;
  return task;
}

Task softmax_rows_task(const SoftmaxRowsParams& p, int64_t threads) {
  check(p, "softmax_rows");
  const auto softmax = kernels().softmax_rows;
  return ranges(p, threads, [=](RowRange range, float*) { softmax(p, range); });
}

Task reduce_rows_task(const ReduceRowsParams& p, int64_t threads) {
  check(p, "reduce_rows");
  if (!p.over_rows) {
    const auto sum = kernels().sum_channels;
    return ranges(p, threads, [=](RowRange range, float*) { sum(p, range); });
  }
  const auto sum = kernels().sum_rows;
  const int64_t slices = (threads + p.batch - 1) / p.batch;
  const int64_t width = ((p.channels + slices - 1) / slices + 15) / 16 * 16;
  const int64_t parts = (p.channels + width - 1) / width;
  Task task;
  task.items = p.batch * parts;
  task.work = p.batch * p.rows * p.channels;
  task.run = [=](int64_t item, float*) {
    const int64_t first = item % parts * width;
    sum(p, item / parts, first, std::min(width, p.channels - first));
  };
  return task;
}

}  // namespace de
