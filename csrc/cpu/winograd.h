// The op conv3x3 between its kernels and the loop over threads.
#pragma once
#include <algorithm>

#include "native/params.h"
#include "step.h"

namespace de {

// ops/conv3x3.py defines the op. float32 throughout.
struct Conv3x3Params {
  int64_t batch = 0, channels = 0, out_channels = 0, height = 0, width = 0;  // of out
  int32_t tile = 0;  // pixels along an edge of an output tile, 2 or 4
  int32_t x_last = 0, out_last = 0;  // whether channels have stride 1, else pixels have
  View x, out, residual;     // null data: no residual; it lies as out does, and may be out
  const float* weight = nullptr;  // packed by ops/conv3x3.py: transformed
  bool given = false;             // or as it was given: [panel][channel][9][PANEL], of a recorded network
  const float* bias = nullptr;    // [out_channels] or null
  // Of a recorded network, whose channels have stride 1: x has 1 / upsample of the lines and columns, and each
  // of its pixels counts as many times; what follows the sums, but for bias and residual.
  int64_t upsample = 1;
  Epilogue followers;
};

// How a convolution is cut into work items: a block of tiles meets a part of the output channels.
// No sum depends on it.
struct WinogradBlocks {
  int64_t tiles;     // of an item
  int64_t channels;  // output channels of an item, whole panels
  int64_t chunk;     // of those, as many as the products are kept for at a time, whole panels

  static constexpr int64_t PANEL = 16;  // output channels next to each other in a packed weight
  static constexpr int64_t GROUP = 2 * PANEL, PART = 64;  // output and input channels of what is transformed at a time

  static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
  static int64_t across(int64_t pixels, int64_t tile) { return (pixels + tile - 1) / tile; }
  static int64_t all_tiles(const Conv3x3Params& p) {
    return p.batch * across(p.height, p.tile) * across(p.width, p.tile);
  }
  static int64_t points(const Conv3x3Params& p) { return (p.tile + 2) * (p.tile + 2); }
  // Multiplications.
  static int64_t work(const Conv3x3Params& p) {
    return all_tiles(p) * points(p) * p.channels * p.out_channels;
  }
  static WinogradBlocks of(const Conv3x3Params& p, int64_t threads);

  // Floats from one row of a block to the next, and from one point's rows to the next point's: odd
  // numbers of cache lines, so that neither a column of rows nor the points share sets of a cache.
  static int64_t row(int64_t channels) { return round_up(channels, 16) | 16; }
  int64_t point(int64_t row) const { return (tiles * row) | 16; }

  int64_t parts(const Conv3x3Params& p) const { return across(round_up(p.out_channels, PANEL), channels); }
  int64_t items(const Conv3x3Params& p) const { return across(all_tiles(p), tiles) * parts(p); }
  // Of a part of the weight, transformed: from one point's panels to the next point's.
  static int64_t weight_point(int64_t panels, int64_t channels) { return (panels * channels * PANEL) | PANEL; }
  // Of an item: transformed input, products, a row of zeros, a part of the weight.
  int64_t scratch(const Conv3x3Params& p) const {
    const int64_t weight = p.given ? weight_point(GROUP / PANEL, PART) : 0;
    return points(p) * (point(row(p.channels)) + point(row(chunk)) + weight) + row(p.channels);
  }
};

void run_conv3x3(const Conv3x3Params& p);

}  // namespace de
