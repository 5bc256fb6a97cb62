#include "quantile.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "philox.h"
#include "run.h"
#include "scratch.h"

namespace de {

// Elements among which a guess is looked for, and the size from which it is worth it.
constexpr int64_t DRAWN = 512, LARGE = 4 * DRAWN;
constexpr int32_t INFINITE = 0x7F800000, LAST = 0x7FFFFFFF;  // magnitudes of infinity and of the last NaN
// Another thread is worth its waking from so many elements on.
constexpr int64_t PER_THREAD = 32768;

namespace {

// The magnitudes of a sample as bits, which are in the order of the values.
class Magnitudes {
 public:
  Magnitudes(const QuantileParams& p, int64_t b, int32_t* kept)
      : p_(p), data_((const float*)p.x.data + b * p.x.batch), kept_(kept) {}

  // The values of ranks k and k + 1, or the last; NaN where there is one.
  std::pair<float, float> at(int64_t k) const {
    const int64_t next = std::min(k + 1, p_.size() - 1);
    const auto [low, high] = guess(k);
    Between found = collect(low, high);
    if (k < found.below || next >= found.below + found.count) found = collect(0, LAST);
    if (found.top > INFINITE) return {value(found.top), value(found.top)};
    int32_t *middle = kept_ + (k - found.below), *end = kept_ + found.count;
    std::nth_element(kept_, middle, end);
    return {value(*middle), value(next == k ? *middle : *std::min_element(middle + 1, end))};
  }

 private:
  static float value(int32_t bits) { return as_float((uint32_t)bits); }

  int32_t bits(int64_t i) const {
    const int64_t at = p_.channels == 1 ? i * p_.x.pixel : i / p_.pixels * p_.x.channel + i % p_.pixels * p_.x.pixel;
    return (int32_t)(as_bits(data_[at]) & 0x7FFFFFFFu);
  }

  // Values between which the rank lies nearly always: three standard deviations of its rank among
  // elements drawn far apart (Floyd and Rivest 1975). Where it does not, all values are looked at.
  std::pair<int32_t, int32_t> guess(int64_t k) const {
    const int64_t n = p_.size(), step = n / DRAWN;
    if (n < LARGE) return {0, LAST};
    int32_t drawn[DRAWN], *end = drawn + DRAWN;
    for (int64_t i = 0, more = 0; i < DRAWN; ++i, more = more + 5 < step ? more + 5 : 0) drawn[i] = bits(i * step + more);
    const double share = (double)k / (double)n;
    const int64_t width = 3 + (int64_t)(3.0 * std::sqrt(share * (1.0 - share) * DRAWN));
    const int64_t middle = (int64_t)(share * DRAWN), from = middle - width, to = middle + width + 1;
    if (from >= 0) std::nth_element(drawn, drawn + from, end);
    if (to < DRAWN) std::nth_element(drawn + std::max<int64_t>(from + 1, 0), drawn + to, end);
    return {from < 0 ? 0 : drawn[from], to >= DRAWN ? LAST : drawn[to]};
  }

  Between collect(int32_t low, int32_t high) const {
    const auto between = kernels().between;
    Between all{0, 0, 0};
    for (int64_t c = 0; c < p_.channels; ++c) {
      const float* from = data_ + c * p_.x.channel;
      const Between found = between(from, p_.pixels, p_.x.pixel, low, high, kept_ + all.count);
      all = {all.below + found.below, all.count + found.count, std::max(all.top, found.top)};
    }
    return all;
  }

  const QuantileParams& p_;
  const float* data_;
  int32_t* kept_;
};

float quantile(const QuantileParams& p, int64_t b) {
  const double q = p.q[b];
  if (!(q >= 0.0 && q <= 1.0)) return std::numeric_limits<float>::quiet_NaN();
  const double position = q * (double)(p.size() - 1), k = std::floor(position), w = position - k;
  int32_t* kept = reinterpret_cast<int32_t*>(scratch(p.size() + ROOM));
  const auto [low, high] = Magnitudes(p, b, kept).at((int64_t)k);
  if (w == 0.0 || low == high) return low;
  return (float)((double)low + w * ((double)high - (double)low));
}

}  // namespace

void run_quantile(const QuantileParams& p) {
  const int64_t wanted = std::min(p.batch, p.batch * p.size() / PER_THREAD);
  const int threads = (int)std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), wanted));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t b = 0; b < p.batch; ++b) p.out[b] = quantile(p, b);
}

}  // namespace de
