#include "group_norm.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "memory.h"
#include "run.h"

namespace de {

// Another thread is worth its waking from so many elements on.
constexpr int64_t PER_THREAD = 16384;
// Channels of an item where samples are few and rows are pixels: 256 bytes of each pixel.
constexpr int64_t WIDTH = 64;
// Elements from which a sample of rows of pixels is walked by all threads together, part by part;
// below, the cache holds it and threads need not wait for each other in between.
constexpr int64_t LARGE = 1 << 18;
constexpr int64_t PART = 1 << 16;

bool rows_are_pixels(const GroupNormParams& p) {
  bool pixels = true, channels = true;
  for (const View* v : {&p.x, &p.out, &p.residual, &p.summed}) {
    if (!v->data || (v == &p.residual && residual_per_channel(p))) continue;
    pixels &= v->pixel == 1;
    channels &= v->channel == 1;
  }
  return p.pixels == 1 ? channels : !pixels;
}

int64_t rows_of_tile(const GroupNormParams& p) {
  return std::min<int64_t>(std::max<int64_t>(4096 / p.channels, 8), 64);
}

static float value(const View& v, int64_t b, int64_t c, float absent) {
  if (!v.data) return absent;
  return element((const char*)v.data + (b * v.batch + c * v.channel) * size_of(v.dtype), v.dtype);
}

void Affine::reset(const GroupNormParams& p, int64_t b, int64_t first, int64_t count) {
  this->first = first;
  for (auto* v : {&center, &factor, &offset, &residual}) v->assign(count, 0.0f);
  if (residual_per_channel(p))
    for (int64_t c = 0; c < count; ++c) residual[c] = value(p.residual, b, first + c, 0.0f);
}

void Affine::fill(const GroupNormParams& p, int64_t b, int64_t group, const Moments& moments) {
  const int64_t channels = p.channels / p.groups;
  const double rstd = 1.0 / std::sqrt(moments.m2 / moments.n + (double)p.eps);
  // Each is rounded once, and what the center loses the offset makes good: every element of the
  // channel inherits their errors.
  const double lost = moments.mean - (float)moments.mean;
  for (int64_t c = group * channels; c < (group + 1) * channels; ++c) {
    const double scale = 1.0 + value(p.scale, b, c, 0.0f);
    const double gain = rstd * value(p.weight, 0, c, 1.0f) * scale;
    const double shift = value(p.bias, 0, c, 0.0f) * scale + value(p.shift, b, c, 0.0f);
    factor[c - first] = (float)gain;
    offset[c - first] = (float)(shift - lost * gain);
    center[c - first] = (float)moments.mean;
  }
}

void Affine::fill(const GroupNormParams& p, int64_t b, const float* columns) {
  const float *mean = columns, *m2 = mean + center.size(), *pivot = m2 + center.size();
  const int64_t channels = p.channels / p.groups, count = (int64_t)center.size();
  for (int64_t c = 0; c < count; c += channels) {
    Moments moments;
    for (int64_t i = c; i < c + channels; ++i)
      moments.merge((double)p.pixels, (double)pivot[i] + mean[i] + residual[i], m2[i]);
    fill(p, b, (first + c) / channels, moments);
  }
}

static int threads_for(int64_t elements, int64_t items) {
  const int64_t wanted = std::min(elements / PER_THREAD, items);
  return (int)std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), wanted));
}

// Items of whole groups; none depends on another.
static void run_groups(const GroupNormParams& p) {
  const auto normalize = kernels().group_norm;
  const int64_t elements = p.batch * p.channels * p.pixels, channels = p.channels / p.groups;
  int64_t step = 1;
  if (rows_are_pixels(p)) {
    // Whole pixels where there are enough samples for the threads: memory is read in order.
    const bool few = p.batch < 2 * threads_for(elements, omp_get_max_threads());
    step = few ? std::min<int64_t>((WIDTH + channels - 1) / channels, p.groups) : p.groups;
  }
  const int64_t parts = (p.groups + step - 1) / step, items = p.batch * parts;
  const int threads = threads_for(elements, items);
  const int64_t grain = std::max<int64_t>(1, PER_THREAD / 4 * items / elements);
#pragma omp parallel for schedule(dynamic, grain) num_threads(threads) if (threads > 1)
  for (int64_t item = 0; item < items; ++item) {
    const int64_t first = item % parts * step;
    normalize(p, item / parts, first, std::min<int64_t>(first + step, p.groups));
  }
}

// Merges the moments [part][3][channel] of parts of `rows` pixels, in order, into the first part's.
static void merge_parts(float* moments, int64_t parts, int64_t rows, const GroupNormParams& p) {
  const int64_t channels = p.channels;
  float *mean = moments, *m2 = moments + channels;
  for (int64_t part = 1; part < parts; ++part) {
    const float* more = moments + part * 3 * channels;
    const int64_t before = part * rows, count = std::min(rows, p.pixels - before);
    const float share = (float)count / (float)(before + count), cross = (float)before * share;
    for (int64_t c = 0; c < channels; ++c) {
      const float delta = more[c] - mean[c];
      mean[c] += delta * share;
      m2[c] += more[channels + c] + delta * delta * cross;
    }
  }
}

// Parts of all pixels: their moments, then, when all are known, the result.
static void run_parts(const GroupNormParams& p) {
  const Kernels& k = kernels();
  const int64_t tile = rows_of_tile(p);
  const int64_t rows = std::max(PART / p.channels / tile, (int64_t)1) * tile;
  const int64_t parts = (p.pixels + rows - 1) / rows, size = 3 * p.channels;
  std::vector<float> moments(p.batch * parts * size);
  const int threads = threads_for(p.batch * p.channels * p.pixels, p.batch * parts);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < p.batch * parts; ++i)
      k.column_moments(p, i / parts, i % parts * rows, std::min((i % parts + 1) * rows, p.pixels),
                       moments.data() + i * size);
    Affine affine;
    std::vector<float> own(parts * size);
    int64_t sample = -1;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < p.batch * parts; ++i) {
      const int64_t b = i / parts, first = i % parts * rows;
      if (b != sample) {
        std::copy_n(moments.begin() + b * parts * size, parts * size, own.begin());
        merge_parts(own.data(), parts, rows, p);
        affine.reset(p, b, 0, p.channels);
        affine.fill(p, b, own.data());
        sample = b;
      }
      k.normalize_rows(p, b, first, std::min(first + rows, p.pixels), affine);
    }
  }
}

// What is done, and so the bits, depends on the shape of one sample alone.
void run_group_norm(const GroupNormParams& p) {
  if (rows_are_pixels(p) && p.channels * p.pixels > LARGE)
    run_parts(p);
  else
    run_groups(p);
}

}  // namespace de
