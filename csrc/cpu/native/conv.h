// Convolutions and linear layers as one product of matrices, whose left one is x itself or gathered in parts.
#pragma once
#include <algorithm>

#include "params.h"
#include "task.h"

namespace de {

// Columns of a packed panel; terms that are summed, and gathered, at a time; columns of a narrow layer.
constexpr int64_t CONV_PANEL = 32, CONV_DEPTH = 384, CONV_NARROW = 4;

// out[b][y][x][n] = epilogue(sum over taps (i, j) and channels c of
//   weight[n][c][i][j] in[b][y stride_y + i dilation_y - pad_top][x stride_x + j dilation_x - pad_left][c])
// where `in` is x, each pixel `upsample` times along both edges, and zeros around it. A row of x and of out is
// a pixel. A linear layer has one tap; its rows are out_width = width of height 1. Group g of `groups` has
// its own channels / groups of the input and out_channels / groups of the output.
struct ConvParams {
  int64_t batch = 0, channels = 0, out_channels = 0;
  int64_t height = 1, width = 1, out_height = 1, out_width = 1;  // height and width as x is stored
  int64_t kernel_height = 1, kernel_width = 1;
  int64_t stride_y = 1, stride_x = 1, pad_top = 0, pad_left = 0, dilation_y = 1, dilation_x = 1;
  int64_t upsample = 1;  // 1 or 2
  int64_t groups = 1;
  Rows x, out;
  const float* weight = nullptr;   // made by conv_pack
  const uint16_t* half = nullptr;  // in its place, made by conv_bf16_pack: products in bf16
  Epilogue epilogue;

  int64_t taps() const { return kernel_height * kernel_width; }
  int64_t pixels() const { return out_height * out_width; }
  int64_t rows() const { return batch * pixels(); }
  int64_t group_channels() const { return channels / groups; }
  int64_t group_columns() const { return out_channels / groups; }
  int64_t depth() const { return taps() * group_channels(); }  // terms of a sum: (tap, channel)
  // Few columns are sums of vectors along the terms, in whose packed weight each column is a row.
  bool narrow() const { return group_columns() <= CONV_NARROW && !depthwise(); }
  // Whether a row of the left matrix is a pixel of x and may be read where it lies. Rows 4096 bytes apart share
  // sets of a cache: a tile of them would read all its lines many times.
  bool in_place() const {
    return taps() == 1 && stride_y == 1 && stride_x == 1 && upsample == 1 && height == out_height &&
           width == out_width && (batch == 1 || x.batch == pixels() * x.row) && x.row % 1024 != 0 && !narrow();
  }
  bool depthwise() const { return groups > 1 && groups == channels && groups == out_channels; }
};

// A packed weight is [group][part of the depth][panel][term of the part][PANEL]; parts are at most DEPTH long
// and differ by one at most. Columns beyond the last are 0. Of a narrow layer it is
// [group][column][conv_narrow_row], the terms and zeros after them, of a depthwise one [tap][channel].
constexpr int64_t conv_narrow_row(int64_t depth) { return (depth + 15) / 16 * 16 + 16; }
int64_t conv_packed_size(int64_t out_channels, int64_t channels, int64_t taps, int64_t groups);
// weight as torch has it: [out_channels][channels / groups][taps].
void conv_pack(const float* weight, int64_t out_channels, int64_t channels, int64_t taps, int64_t groups,
               float* packed);

// How a convolution is cut into items: a block of rows meets a part of the panels of a group. No sum depends
// on it.
struct ConvBlocks {
  int64_t rows = 0;    // of an item
  int64_t panels = 0;  // of an item

  // Floats from one gathered row to the next, and from one row of sums to the next: odd numbers of cache lines,
  // so that the rows of a tile do not share sets of a cache.
  static constexpr int64_t ROW = CONV_DEPTH + 16;
  int64_t sums_row() const { return std::max(panels * CONV_PANEL, CONV_NARROW * 16) | 16; }

  static int64_t parts_of(int64_t n, int64_t most) { return (n + most - 1) / most; }
  static int64_t all_panels(const ConvParams& p) { return parts_of(p.group_columns(), CONV_PANEL); }
  int64_t row_blocks(const ConvParams& p) const { return parts_of(p.rows(), rows); }
  int64_t panel_parts(const ConvParams& p) const { return parts_of(all_panels(p), panels); }
  int64_t items(const ConvParams& p) const { return row_blocks(p) * panel_parts(p) * p.groups; }
  int64_t scratch() const { return rows * (ROW + sums_row()); }
};

Task conv_task(const ConvParams& p, int64_t threads);

}  // namespace de
