#include "conv_bf16.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernels.h"

namespace de {

// Rows of an item, elements of its strips, and pixels of a line: with a panel, all stays in a second cache of 1 MiB.
constexpr int64_t ROWS_OF_ITEM = 256, STRIPS_OF_ITEM = 3 << 17, COLUMNS_OF_ITEM = 64;
// Pixels of a sample up to which several are one list: blocks of its own would be half empty.
constexpr int64_t FEW_PIXELS = 63;
// Multiplications of an item that is worth being one of several for each thread, and of a layer that is worth several.
constexpr int64_t LARGE_ITEM = 1 << 23, SMALL_WORK = 1 << 18;

static int64_t panels_of(int64_t out_channels) { return ConvBlocks::parts_of(out_channels, HALF_COLUMNS); }

int64_t conv_bf16_packed_size(int64_t out_channels, int64_t channels, int64_t taps) {
  return panels_of(out_channels) * taps * ConvBlocks::parts_of(channels, HALF_TERMS) * HALF_TERMS * HALF_COLUMNS;
}

// To nearest, ties to even; NaN stays one.
static uint16_t rounded(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (std::isnan(x)) return (uint16_t)(bits >> 16 | 0x40u);
  return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

void conv_bf16_pack(const float* weight, int64_t out_channels, int64_t channels, int64_t taps, uint16_t* packed) {
  const int64_t room = ConvBlocks::parts_of(channels, HALF_TERMS) * HALF_TERMS;
  for (int64_t first = 0; first < panels_of(out_channels) * HALF_COLUMNS; first += HALF_COLUMNS)
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t pair = 0; pair < room; pair += 2)
        for (int64_t n = first; n < first + HALF_COLUMNS; ++n)
          for (int64_t c = pair; c < pair + 2; ++c)
            *packed++ = n < out_channels && c < channels ? rounded(weight[(n * channels + c) * taps + tap]) : 0;
}

// The same layer in the form that has the most lines: a picture of one line stands upright, and where each pixel is
// made of its own alone, all of them are a column.
static ConvParams upright(ConvParams p) {
  const bool flat = p.height == 1 && p.out_height == 1 && p.kernel_height == 1 && p.pad_top == 0 && p.upsample == 1;
  if (flat) {
    std::swap(p.height, p.width), std::swap(p.out_height, p.out_width);
    std::swap(p.kernel_height, p.kernel_width), std::swap(p.stride_y, p.stride_x);
    std::swap(p.pad_top, p.pad_left), std::swap(p.dilation_y, p.dilation_x);
  }
  if (p.taps() == 1 && p.stride_y == 1 && p.stride_x == 1 && p.pad_top == 0 && p.pad_left == 0 && p.upsample == 1 &&
      p.out_height == p.height && p.out_width == p.width) {
    p.height = p.out_height = p.pixels();
    p.width = p.out_width = 1;
  }
  return p;
}

// Which taps have strips of their own, whatever the item.
static HalfConvBlocks strips_of(const ConvParams& p) {
  HalfConvBlocks found;
  const int64_t apart = p.stride_y / std::gcd(p.stride_y, p.dilation_y);
  const bool few = p.batch > 1 && p.pixels() <= FEW_PIXELS;
  found.phases = few ? p.kernel_height : std::min(p.kernel_height, apart);
  found.further = (p.kernel_height - 1) / found.phases * found.phases * p.dilation_y / p.stride_y;
  const int64_t terms = ConvBlocks::parts_of(p.channels, HALF_TERMS);
  // Rows 512 bytes apart share sets of a cache.
  found.row = (terms % 8 == 0 ? terms + 1 : terms) * HALF_TERMS;
  return found;
}

// Equal parts of `all`, of which none is larger than `most`.
static int64_t part_of(int64_t all, int64_t most) {
  return ConvBlocks::parts_of(all, ConvBlocks::parts_of(all, std::max<int64_t>(most, 1)));
}

// About so many rows of an item: lines of a sample, or whole samples. Whole blocks where there are several.
static void cut(const ConvParams& p, int64_t rows, HalfConvBlocks& found) {
  const int64_t lines = found.all_lines(p), line = found.phases * p.kernel_width * found.columns * found.row;
  const int64_t most = std::min(rows / found.columns, STRIPS_OF_ITEM / line - found.further);
  const int64_t even = HALF_ROWS / std::gcd(HALF_ROWS, found.columns), unit = most < even ? 1 : even;
  found.lines = std::min(lines, unit * part_of(ConvBlocks::parts_of(lines, unit), most / unit));
  const int64_t whole = std::min(rows / (lines * found.columns), STRIPS_OF_ITEM / found.sample(p));
  found.samples = found.lines < lines ? 1 : part_of(found.all_samples(p), whole);
}

// Threads share out the panels first, so that no part of the weight is read twice.
static HalfConvBlocks blocks_of(const ConvParams& p, int64_t threads) {
  HalfConvBlocks found = strips_of(p);
  found.columns = part_of(p.out_width, COLUMNS_OF_ITEM);
  cut(p, ROWS_OF_ITEM, found);
  const int64_t work = p.rows() * p.depth() * p.out_channels, panels = panels_of(p.out_channels);
  const int64_t wanted = work / LARGE_ITEM >= 4 * threads ? 4 * threads : threads;
  int64_t parts = 1;
  if (threads > 1 && work >= SMALL_WORK) {
    const int64_t rectangles = found.rectangles(p);
    while (parts < panels && rectangles * parts % threads != 0 && rectangles * parts < wanted) ++parts;
    if (rectangles * parts < threads) cut(p, ConvBlocks::parts_of(p.rows(), threads), found);
  }
  found.panels = ConvBlocks::parts_of(panels, parts);
  return found;
}

static void refuse(const ConvParams& p) {
  if (p.groups != 1)
    throw std::invalid_argument("a convolution in bf16 has one group; it was given " + std::to_string(p.groups) +
                                ": do it in float32");
  if (p.batch < 1 || p.channels < 1 || p.out_channels < 1 || p.pixels() < 1 || p.taps() < 1)
    throw std::invalid_argument("a convolution in bf16 needs samples, channels and pixels, in and out");
}

Task conv_bf16_task(const ConvParams& given, int64_t threads) {
  refuse(given);
  const ConvParams p = upright(given);
  HalfConvBlocks blocks = blocks_of(p, threads);
  for (int64_t i = 0; i < p.kernel_height; ++i)
    for (int64_t j = 0; j < p.kernel_width; ++j) blocks.taps.push_back(blocks.tap(p, i, j));
  Task task;
  task.items = blocks.rectangles(p) * ConvBlocks::parts_of(panels_of(p.out_channels), blocks.panels);
  task.scratch = blocks.scratch(p);
  task.work = p.rows() * p.depth() * p.out_channels;
  task.run = [p, blocks, conv = half_kernels().conv](int64_t item, float* scratch) { conv(p, blocks, item, scratch); };
  return task;
}

}  // namespace de
