// What every instruction set offers.
#pragma once
#include "attention.h"
#include "group_norm.h"
#include "native/attend.h"
#include "native/conv.h"
#include "native/norm_groups.h"
#include "native/norm_rows.h"
#include "native/matmul.h"
#include "native/map.h"
#include "noise.h"
#include "quantile.h"
#include "step.h"
#include "winograd.h"

namespace de {

// Elements [first, last) of samples [b0, b1).
struct Kernels {
  const char* isa;
  void (*step)(const StepParams&, int64_t b0, int64_t b1, int64_t first, int64_t last);
  void (*noise)(const NoiseParams&, int64_t b0, int64_t b1, int64_t first, int64_t last);
  void (*brownian)(const BrownianParams&, int64_t b0, int64_t b1, int64_t first, int64_t last);
  // Elements first ... first + count - 1 of one sample.
  void (*normals)(uint64_t seed, uint32_t key, uint32_t m, int64_t first, int64_t count, float* out);
  // Groups [first, last) of sample b.
  void (*group_norm)(const GroupNormParams&, int64_t b, int64_t first, int64_t last);
  // Pixels [row, last) of sample b where rows are pixels: moments [3][channel], then the result.
  void (*column_moments)(const GroupNormParams&, int64_t b, int64_t row, int64_t last, float* columns);
  void (*normalize_rows)(const GroupNormParams&, int64_t b, int64_t row, int64_t last, const Affine&);
  // One of blocks.items(params), with blocks.scratch(params) floats of its own.
  void (*attention)(const AttentionParams&, const AttentionBlocks& blocks, int64_t item, float* scratch);
  // The same of a convolution.
  void (*conv3x3)(const Conv3x3Params&, const WinogradBlocks& blocks, int64_t item, float* scratch);
  // One of blocks.items(params), with blocks.scratch() floats of its own.
  void (*conv)(const ConvParams&, const ConvBlocks& blocks, int64_t item, float* scratch);
  // Rows [first, last) of all samples.
  void (*depthwise)(const ConvParams&, int64_t first, int64_t last);
  // The same as attention, in float32 and with a mask or none.
  void (*attend)(const AttentionParams&, const Mask&, const AttentionBlocks&, int64_t item, float* scratch);
  // All of a slice of channels.
  void (*norm_slice)(const NormGroupsParams&, const NormSlice&, float* scratch);
  // Moments [3][channels] of a block of a sample's rows; and rows from those of all blocks, which they follow.
  void (*norm_moments)(const NormGroupsParams&, int64_t b, int64_t block, float* moments);
  void (*norm_from_moments)(const NormGroupsParams&, int64_t b, int64_t row, int64_t last, float* moments,
                            float* scratch);
  // 2 rows of scratch.
  void (*norm_rows)(const NormRowsParams&, RowRange, float* scratch);
  void (*softmax_rows)(const SoftmaxRowsParams&, RowRange);
  void (*sum_channels)(const ReduceRowsParams&, RowRange);
  // Channels [first, first + count) of sample b.
  void (*sum_rows)(const ReduceRowsParams&, int64_t b, int64_t first, int64_t count);
  // One of blocks.items(params), with blocks.scratch() floats of its own.
  void (*matmul)(const MatmulParams&, const MatmulBlocks& blocks, int64_t item, float* scratch);
  void (*map)(const MapPlan&, int64_t item, float* scratch);
  uint64_t (*checksum)(const unsigned char* from, int64_t bytes);
  // The sums of a segment of sample b.
  void (*norms)(const NormsParams&, int64_t b, int64_t segment, double* to);
  // Of n values that lie `step` apart: how many magnitudes are below `low`, and those from `low` to `high`,
  // for which `to` has room, and for ROOM more.
  Between (*between)(const float* x, int64_t n, int64_t step, int32_t low, int32_t high, int32_t* to);
};

extern const Kernels scalar;
#ifdef DE_X86
extern const Kernels avx2, avx512;
#endif

}  // namespace de
