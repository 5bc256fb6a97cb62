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

struct Window {
  int64_t first, last, counted;  // inside of x, and with the padding
};

Window window(int64_t i, int64_t stride, int64_t padding, int64_t kernel, int64_t size) {
  const int64_t start = i * stride - padding, end = std::min(start + kernel, size + padding);
  return {std::max<int64_t>(start, 0), std::min(end, size), end - start};
}

void one_mean(const PoolParams& p, const float* x, float* out, Window y, Window z) {
  std::fill_n(out, p.channels, 0.0f);
  for (int64_t i = y.first; i < y.last; ++i)
    for (int64_t j = z.first; j < z.last; ++j) {
      const float* from = x + (i * p.width + j) * p.x.row;
      for (int64_t c = 0; c < p.channels; ++c) out[c] += from[c];
    }
  const int64_t inside = (y.last - y.first) * (z.last - z.first);
  const float count = (float)(p.count_padding ? y.counted * z.counted : inside);
  for (int64_t c = 0; c < p.channels; ++c) out[c] /= count;
}

void one_greatest(const PoolParams& p, const float* x, float* out, Window y, Window z) {
  std::fill_n(out, p.channels, -INFINITY);
  for (int64_t i = y.first; i < y.last; ++i)
    for (int64_t j = z.first; j < z.last; ++j) {
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
    const Window rows = window(y, p.stride_y, p.padding_y, p.kernel_y, p.height);
    for (int64_t i = 0; i < p.out_width; ++i) {
      const Window columns = window(i, p.stride_x, p.padding_x, p.kernel_x, p.width);
      float* out = p.out.data + b * p.out.batch + (y * p.out_width + i) * p.out.row;
      (p.greatest ? one_greatest : one_mean)(p, p.x.data + b * p.x.batch, out, rows, columns);
    }
  };
  return task;
}

}  // namespace de
