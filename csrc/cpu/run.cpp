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

// Calls work(b0, b1, first, last) until every element of every sample is covered: several samples
// at a time where they are small, parts of one where they are large. Items are handed out one by
// one, because idle samples and busy machines make their times differ. cost is that of an element.
template <class Work>
static void spread(int64_t batch, int64_t size, int64_t cost, Work work) {
  if (batch <= 0 || size <= 0) return;
  const int64_t parts = std::max<int64_t>(1, size / GRAIN);
  const int64_t part = ((size + parts - 1) / parts + GRAIN / 16 - 1) / (GRAIN / 16) * (GRAIN / 16);
  const int64_t group = std::max<int64_t>(1, GRAIN / size);
  const int64_t groups = (batch + group - 1) / group, items = groups * parts;
  const int64_t wanted = std::min(batch * size * cost / PER_THREAD, items);
  const int threads = (int)std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), wanted));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t item = 0; item < items; ++item) {
    const int64_t b0 = item / parts * group, first = item % parts * part;
    work(b0, std::min(b0 + group, batch), std::min(first, size), std::min(first + part, size));
  }
}

static void set_label(const StepParams& p, int32_t entry, double label) {
  if (p.label_dtype == F32)
    ((float*)p.label)[entry] = (float)label;
  else if (p.label_dtype == F64)
    ((double*)p.label)[entry] = label;
  else
    ((int64_t*)p.label)[entry] = whole_label(label);
}

// How many samples draw their normals.
static int64_t draws(const StepParams& p) {
  if (!p.noise.data) return p.batch;
  return p.given ? std::count(p.given, p.given + p.batch, 0) : 0;
}

// After all elements: the parts of a sample read its row.
static void advance(const StepParams& p) {
  for (int64_t b = 0; b < p.batch; ++b) {
    const int32_t row = p.row[b];
    if (row < 0) continue;
    for (int g = 0; p.label && p.dst && g < p.entries; ++g) {
      const int32_t entry = p.dst[b * p.entries + g];
      if (entry >= 0) set_label(p, entry, p.labels[row]);
    }
    p.row[b] = p.index[(int64_t)row * INDEX + NEXT];
  }
}

void run_step(const StepParams& p) {
  if (DEBUG) check_indices(p);
  const auto step = kernels().step;
  const int64_t drawn = NORMAL_COST * (p.normals + (p.mask.data != nullptr));
  const int64_t cost = 1 + drawn * draws(p) / std::max<int64_t>(p.batch, 1);
  spread(p.batch, p.channels * p.pixels, cost,
         [&](int64_t b0, int64_t b1, int64_t first, int64_t last) { step(p, b0, b1, first, last); });
  advance(p);
}

void run_noise(const NoiseParams& p) {
  if (DEBUG) check_rows("noise", p);
  const auto noise = kernels().noise;
  spread(p.batch, p.channels * p.pixels, NORMAL_COST,
         [&](int64_t b0, int64_t b1, int64_t first, int64_t last) { noise(p, b0, b1, first, last); });
}

void run_brownian(const BrownianParams& p) {
  if (DEBUG) check_indices(p);
  const auto brownian = kernels().brownian;
  spread(p.batch, p.channels * p.pixels, TERMS * NORMAL_COST * p.draws,
         [&](int64_t b0, int64_t b1, int64_t first, int64_t last) { brownian(p, b0, b1, first, last); });
}

}  // namespace de
