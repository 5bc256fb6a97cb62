// Winograd's convolutions of a recorded network.
#pragma once
#include "conv.h"

namespace de {

// A convolution of 3x3 taps, stride 1 and one pixel of zeros around, as ConvParams has it; `tile` is 2 or 4 and
// the weight that of ops/conv3x3.py for it, whose bits these are; or, where it is `given`,
// [panel][channel][tap][WinogradBlocks::PANEL] with zeros beyond the last output channel, which every item
// transforms: 1.8 or 4 times fewer numbers are kept, and read.
struct WinogradConvParams {
  int64_t batch = 0, channels = 0, out_channels = 0;
  int64_t height = 1, width = 1;  // as x is stored; out has `upsample` times the lines and columns
  int64_t upsample = 1;
  int32_t tile = 2;
  bool given = false;
  Rows x, out;
  const float* weight = nullptr;
  Epilogue epilogue;
};

Task winograd_conv_task(const WinogradConvParams& p, int64_t threads);

}  // namespace de
