#include "norm_groups.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <stdexcept>

#include "../run.h"

namespace de {

// Channels that a slice has at least: two cache lines of each row.
constexpr int64_t NARROWEST = 32;
// Floats of an item that its second walk still finds in the second cache.
constexpr int64_t CACHED = 1 << 18;

static int64_t across(int64_t n, int64_t by) { return (n + by - 1) / by; }

static void check(const NormGroupsParams& p) {
  if (p.batch < 1 || p.rows < 1 || p.channels < 1 || p.groups < 1 || p.channels % p.groups)
    throw std::invalid_argument("norm_groups needs samples, rows and channels that the groups divide");
}

// Channels of a slice, so that threads have as many each: whole groups in whole cache lines.
static int64_t slice_of(const NormGroupsParams& p, int64_t threads) {
  const int64_t unit = std::lcm(p.channels / p.groups, (int64_t)16);
  const int64_t slices = p.batch < 4 * threads ? threads / std::gcd(threads, p.batch) : 1;
  const int64_t wanted = std::max(across(p.channels, slices), std::min(NARROWEST, p.channels));
  return std::min(across(wanted, unit) * unit, p.channels);
}

static int64_t scratch_of_groups(const NormGroupsParams& p, int64_t width) {
  return NormBlocks::GROUP_FLOATS * (width * p.groups / p.channels);
}

static Task whole_slices(const NormGroupsParams& p, int64_t width) {
  const auto run = kernels().norm_slice;
  const int64_t slices = across(p.channels, width);
  Task task;
  task.items = p.batch * slices;
  task.scratch = 5 * width + scratch_of_groups(p, width);
  task.work = 2 * p.batch * p.rows * p.channels;
  task.run = [=](int64_t item, float* scratch) {
    const int64_t first = item % slices * width;
    run(p, {item / slices, first, std::min(width, p.channels - first)}, scratch);
  };
  return task;
}

static std::vector<Task> moments_first(const NormGroupsParams& p, int64_t threads) {
  const auto take = kernels().norm_moments;
  const auto finish = kernels().norm_from_moments;
  const int64_t blocks = NormBlocks(p.rows).count, size = 3 * p.channels;
  const std::shared_ptr<float[]> moments(new float[p.batch * blocks * size]);
  Task first, second;
  first.items = p.batch * blocks;
  first.work = second.work = p.batch * p.rows * p.channels;
  first.run = [=](int64_t item, float*) {
    take(p, item / blocks, item % blocks, moments.get() + item * size);
  };
  const int64_t parts = std::min(p.rows, across(2 * threads, p.batch)), rows = across(p.rows, parts);
  second.items = p.batch * parts;
  second.scratch = size + scratch_of_groups(p, p.channels);
  second.run = [=](int64_t item, float* scratch) {
    const int64_t b = item / parts, row = std::min(item % parts * rows, p.rows);
    finish(p, b, row, std::min(row + rows, p.rows), moments.get() + b * blocks * size, scratch);
  };
  return {first, second};
}

std::vector<Task> norm_groups_tasks(const NormGroupsParams& p, int64_t threads) {
  check(p);
  const int64_t width = slice_of(p, threads);
  const bool enough = p.batch * across(p.channels, width) >= threads && p.rows * width <= CACHED;
  // A single block has nothing to share out.
  if (enough || NormBlocks(p.rows).count == 1) return {whole_slices(p, width)};
  return moments_first(p, threads);
}

}  // namespace de
