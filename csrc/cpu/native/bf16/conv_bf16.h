// Convolutions and linear layers in bf16: products of rounded inputs, summed in float32.
#pragma once
#include <vector>

#include "../conv.h"
#include "kernels.h"

namespace de {

// A packed weight is [panel][tap][block of channels][pair of channels][HALF_COLUMNS][2], 0 beyond the last column
// and channel.
int64_t conv_bf16_packed_size(int64_t out_channels, int64_t channels, int64_t taps);
// weight as torch has it: [out_channels][channels][taps].
void conv_bf16_pack(const float* weight, int64_t out_channels, int64_t channels, int64_t taps, uint16_t* packed);

// How a convolution is cut into items: a rectangle of pixels of some samples meets some panels. No sum depends on
// it.
//
// An item rounds what it needs of x once, into strips. The strip of tap (i, j) holds what it reads for one pixel of
// out after another: pixel x of line y is
//   in[y stride_y + i dilation_y - pad_top][x stride_x + j dilation_x - pad_left]
// Tap (i + phases, j) reads the same strip, further down by phases dilation_y / stride_y, a whole number of lines. So
// the terms of all taps are matrices that lie there. With a strip for every tap no line is beyond those of out, and
// the lines of all samples are one list.
struct HalfConvBlocks {
  int64_t samples = 0, lines = 0, columns = 0, panels = 0;  // of an item; of a list, all samples are one
  int64_t phases = 0;                                       // taps of a column of the kernel with strips of their own
  int64_t further = 0;                                      // lines of a strip beyond those of out
  int64_t row = 0;                                          // elements from a pixel of a strip to the next
  std::vector<int64_t> taps;                                // where each one's matrix begins in a sample's strips

  bool list() const { return further == 0; }
  int64_t strip() const { return (lines + further) * columns * row; }
  int64_t sample(const ConvParams& p) const { return phases * p.kernel_width * strip(); }
  int64_t tap(const ConvParams& p, int64_t i, int64_t j) const {
    const int64_t down = (i - i % phases) * p.dilation_y / p.stride_y;
    return (i % phases * p.kernel_width + j) * strip() + down * columns * row;
  }
  // Of the packed weight.
  static int64_t panel(const ConvParams& p) {
    return p.taps() * ConvBlocks::parts_of(p.channels, HALF_TERMS) * HALF_TERMS * HALF_COLUMNS;
  }

  int64_t all_samples(const ConvParams& p) const { return list() ? 1 : p.batch; }
  int64_t all_lines(const ConvParams& p) const { return list() ? p.batch * p.out_height : p.out_height; }
  int64_t rectangles(const ConvParams& p) const {
    return ConvBlocks::parts_of(all_samples(p), samples) * ConvBlocks::parts_of(all_lines(p), lines) *
           ConvBlocks::parts_of(p.out_width, columns);
  }
  // A block of sums, strips, and rows behind them that a tile may read.
  int64_t scratch(const ConvParams& p) const {
    return HALF_ROWS * HALF_COLUMNS + (samples * sample(p) + HALF_ROWS / 2 * row) / 2;
  }
};

Task conv_bf16_task(const ConvParams& p, int64_t threads);

}  // namespace de
