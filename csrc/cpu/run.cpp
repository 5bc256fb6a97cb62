#include "run.h"

#include <omp.h>

#include <algorithm>
#include <atomic>

#include "indices.h"
#include "label.h"

namespace de {

// Elements of a work item, a multiple of the kernels' chunk.
constexpr int64_t GRAIN = 16384;
// Another thread is worth its waking, some 20 microseconds, from so many elements on; an element
// with a normal takes as long as 8 without.
constexpr int64_t PER_THREAD = 131072, NORMAL_COST = 8;

std::vector<const Kernels*> supported() {
  std::vector<const Kernels*> found;
#ifdef DE_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    found.push_back(&avx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c"))
    found.push_back(&avx2);
#endif
  found.push_back(&scalar);
  return found;
}

static std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> chosen{supported().front()};
  return chosen;
}

const Kernels& kernels() { return *current().load(std::memory_order_relaxed); }

bool choose(const std::string& isa) {
  for (const Kernels* k : supported()) {
    if (isa != k->isa) continue;
    current() = k;
    return true;
  }
  return false;
}

Items::Items(int64_t batch, int64_t size, int64_t cost) : batch(batch), size(size), work(batch * size * cost) {
  parts = std::max<int64_t>(1, size / GRAIN);
  part = ((size + parts - 1) / parts + GRAIN / 16 - 1) / (GRAIN / 16) * (GRAIN / 16);
  group = std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, size));
  count = batch <= 0 || size <= 0 ? 0 : (batch + group - 1) / group * parts;
}

// Every item, on threads of OpenMP's.
template <class Run>
static void spread(const Items& items, Run run) {
  const int64_t wanted = std::min(items.work / PER_THREAD, items.count);
  const int threads = (int)std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), wanted));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t item = 0; item < items.count; ++item) run(item);
}

// How many samples draw their normals.
static int64_t draws(const StepParams& p) {
  if (!p.noise.data) return p.batch;
  return p.given ? std::count(p.given, p.given + p.batch, 0) : 0;
}

static int64_t cost(const StepParams& p) {
  const int64_t drawn = NORMAL_COST * (p.normals + (p.mask.data != nullptr));
  return 1 + drawn * draws(p) / std::max<int64_t>(p.batch, 1);
}

Step::Step(const StepParams& p) : p(p), items(p.batch, p.channels * p.pixels, cost(p)) {
  if (DEBUG) check_indices(p);
}

void Step::run(int64_t item) const {
  items.at(item, [this](int64_t b0, int64_t b1, int64_t first, int64_t last) {
    kernels().step(p, b0, b1, first, last);
  });
}

void Step::end() const {
  for (int64_t b = 0; b < p.batch; ++b) {
    const int32_t row = p.row[b];
    if (row < 0) continue;
    for (int g = 0; p.label && p.dst && g < p.entries; ++g) {
      const int32_t entry = p.dst[b * p.entries + g];
      if (entry >= 0) set_labels(p, entry, row);
    }
    p.row[b] = p.index[(int64_t)row * INDEX + NEXT];
  }
}

void run_step(const StepParams& p) {
  const Step step(p);
  spread(step.items, [&](int64_t item) { step.run(item); });
  step.end();
}

void run_noise(const NoiseParams& p) {
  if (DEBUG) check_rows("noise", p);
  const auto noise = kernels().noise;
  const Items items(p.batch, p.channels * p.pixels, NORMAL_COST);
  spread(items, [&](int64_t item) {
    items.at(item, [&](int64_t b0, int64_t b1, int64_t first, int64_t last) { noise(p, b0, b1, first, last); });
  });
}

void run_brownian(const BrownianParams& p) {
  if (DEBUG) check_indices(p);
  const auto brownian = kernels().brownian;
  const Items items(p.batch, p.channels * p.pixels, TERMS * NORMAL_COST * p.draws);
  spread(items, [&](int64_t item) {
    items.at(item, [&](int64_t b0, int64_t b1, int64_t first, int64_t last) { brownian(p, b0, b1, first, last); });
  });
}

}  // namespace de
