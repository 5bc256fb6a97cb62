#include "resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace de {

namespace {

std::vector<int64_t> sources(int64_t size, int64_t from, float step) {
  std::vector<int64_t> found(size);
  for (int64_t i = 0; i < size; ++i) found[i] = std::min((int64_t)std::floor((float)i * step), from - 1);
  return found;
}

// The window of a pixel begins at x.
void one_mean(const PoolParams& p, const float* x, float* out) {
  std::fill_n(out, p.channels, 0.0f);
  for (int64_t i = 0; i < p.kernel_y; ++i)
    for (int64_t j = 0; j < p.kernel_x; ++j) {
      const float* from = x + (i * p.width + j) * p.x.row;
      for (int64_t c = 0; c < p.channels; ++c) out[c] += from[c];
    }
  const float count = (float)(p.kernel_y * p.kernel_x);
  for (int64_t c = 0; c < p.channels; ++c) out[c] /= count;
}

void one_greatest(const PoolParams& p, const float* x, float* out) {
  std::fill_n(out, p.channels, -INFINITY);
  for (int64_t i = 0; i < p.kernel_y; ++i)
    for (int64_t j = 0; j < p.kernel_x; ++j) {
      const float* from = x + (i * p.width + j) * p.x.row;
      // NaN stays and passes.
      for (int64_t c = 0; c < p.channels; ++c) out[c] = out[c] >= from[c] || out[c] != out[c] ? out[c] : from[c];
    }
}

}  // namespace

// An item is a row of the output's pixels.
Task upsample_task(const UpsampleParams& p, int64_t) {
  Task task;
  task.items = p.batch * p.out_height;
  task.work = task.items * p.out_width * p.channels;
  task.run = [p, ys = sources(p.out_height, p.height, p.y_step),
              xs = sources(p.out_width, p.width, p.x_step)](int64_t item, float*) {
    const int64_t b = item / p.out_height, y = item % p.out_height;
    const float* from = p.x.data + b * p.x.batch + ys[y] * p.width * p.x.row;
    float* to = p.out.data + b * p.out.batch + y * p.out_width * p.out.row;
    for (int64_t i = 0; i < p.out_width; ++i)
      std::memcpy(to + i * p.out.row, from + xs[i] * p.x.row, p.channels * sizeof(float));
  };
  return task;
}

Task pool_task(const PoolParams& p, int64_t) {
  Task task;
  task.items = p.batch * p.out_height;
  task.work = task.items * p.out_width * p.channels * p.kernel_y * p.kernel_x;
  task.run = [p](int64_t item, float*) {
    const int64_t b = item / p.out_height, y = item % p.out_height;
    const float* line = p.x.data + b * p.x.batch + y * p.stride_y * p.width * p.x.row;
    float* out = p.out.data + b * p.out.batch + y * p.out_width * p.out.row;
    for (int64_t i = 0; i < p.out_width; ++i, line += p.stride_x * p.x.row, out += p.out.row)
      (p.greatest ? one_greatest : one_mean)(p, line, out);
  };
  return task;
}

}  // namespace de
