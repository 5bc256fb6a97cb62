// The ops of networks for native code: group_norm and attention (diffusion_engine/ops/ defines them).
// Plain C++ and raw pointers: the CPU and CUDA kernels both take these by value.
#pragma once
#include "step.h"

namespace de {

// Dtypes are F32, BF16 and F16. Null data: absent.
struct GroupNormParams {
  int64_t batch, channels, pixels;
  int32_t groups, silu;
  float eps;
  // x, out, summed and a residual of x's shape all have pixel stride 1, or all have channel stride 1;
  // where there is one pixel or one channel both hold. A residual of one value per channel has
  // pixel stride 0. out may be x; summed may be x or the residual.
  View x, out, residual, summed;
  View weight, bias;  // channel strides; the others are 0
  View scale, shift;  // batch and channel strides; the pixels' is 0
  // Of the GPU's kernels, group_norm_workspace(params) bytes; null where that is 0.
  void* workspace;
};

// Element (b, h, token, d) at data + b * batch + h * head + token * token_stride + d, in elements.
struct Heads {
  void* data;
  int64_t batch, head, token;
};

struct AttentionParams {
  int64_t batch, heads, queries, keys, dim;
  int32_t dtype;  // of all four
  float scale;
  Heads q, k, v, out;
  // Of the GPU's kernels, attention_workspace(params) bytes; null where that is 0.
  void* workspace;
};

}  // namespace de
