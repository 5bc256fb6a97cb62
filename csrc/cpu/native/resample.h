// Pictures as rows of channels, made larger by repeating pixels and smaller by their mean or greatest.
#pragma once
#include "params.h"
#include "task.h"

namespace de {

// Output row y reads input row floor(y * y_step) in float32, as torch does, at most the last; columns the same.
struct UpsampleParams {
  Rows x, out;
  int64_t batch = 0, height = 0, width = 0, channels = 0;  // of x
  int64_t out_height = 0, out_width = 0;
  float y_step = 0, x_step = 0;
};

Task upsample_task(const UpsampleParams& p, int64_t threads);

// The mean or the greatest of a window. All windows lie inside of x.
struct PoolParams {
  Rows x, out;
  int64_t batch = 0, height = 0, width = 0, channels = 0;  // of x
  int64_t out_height = 0, out_width = 0;
  int64_t kernel_y = 0, kernel_x = 0, stride_y = 0, stride_x = 0;
  bool greatest = false;
};

Task pool_task(const PoolParams& p, int64_t threads);

}  // namespace de
