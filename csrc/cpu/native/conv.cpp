#include "conv.h"

#include <cstring>

#include "../run.h"
#include "bf16/conv_bf16.h"

namespace de {

// Rows of an item, with the sums of PANELS panels: both stay in a second cache of 512 KiB.
constexpr int64_t ROWS_OF_ITEM = 128, PANELS_OF_ITEM = 8;
// Multiplications of an item that is worth being one of several for each thread.
constexpr int64_t LARGE_ITEM = 1 << 21;
// Elements of a depthwise layer's item.
constexpr int64_t DEPTHWISE_ITEM = 16384;

static bool depthwise(int64_t out_channels, int64_t channels, int64_t groups) {
  return groups > 1 && groups == channels && groups == out_channels;
}

int64_t conv_packed_size(int64_t out_channels, int64_t channels, int64_t taps, int64_t groups) {
  if (depthwise(out_channels, channels, groups)) return taps * channels;
  const int64_t depth = taps * (channels / groups);
  if (out_channels / groups <= CONV_NARROW) return out_channels * conv_narrow_row(depth);
  const int64_t panels = ConvBlocks::parts_of(out_channels / groups, CONV_PANEL);
  return groups * panels * CONV_PANEL * depth;
}

// One group of it; `weight` begins with the group's first column.
static void pack_group(const float* weight, int64_t columns, int64_t channels, int64_t taps, float* to) {
  const int64_t depth = taps * channels, parts = ConvBlocks::parts_of(depth, CONV_DEPTH);
  const int64_t panels = ConvBlocks::parts_of(columns, CONV_PANEL);
  for (int64_t part = 0, first = 0; part < parts; ++part) {
    const int64_t count = depth / parts + (part < depth % parts);
    for (int64_t panel = 0; panel < panels; ++panel)
      for (int64_t k = first; k < first + count; ++k)
        for (int64_t i = 0; i < CONV_PANEL; ++i) {
          const int64_t n = panel * CONV_PANEL + i, tap = k / channels, c = k % channels;
          *to++ = n < columns ? weight[(n * channels + c) * taps + tap] : 0.0f;
        }
    first += count;
  }
}

// A narrow layer's column; `to` moves on.
static void pack_row(const float* weight, int64_t channels, int64_t taps, float*& to) {
  const int64_t depth = taps * channels;
  for (int64_t k = 0; k < conv_narrow_row(depth); ++k)
    *to++ = k < depth ? weight[k % channels * taps + k / channels] : 0.0f;
}

void conv_pack(const float* weight, int64_t out_channels, int64_t channels, int64_t taps, int64_t groups,
               float* packed) {
  if (depthwise(out_channels, channels, groups)) {
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t c = 0; c < channels; ++c) *packed++ = weight[c * taps + tap];
    return;
  }
  if (out_channels / groups <= CONV_NARROW) {
    for (int64_t n = 0; n < out_channels; ++n)
      pack_row(weight + n * taps * (channels / groups), channels / groups, taps, packed);
    return;
  }
  const int64_t columns = out_channels / groups, size = channels / groups * taps;
  const int64_t packed_group = conv_packed_size(out_channels, channels, taps, groups) / groups;
  for (int64_t g = 0; g < groups; ++g)
    pack_group(weight + g * columns * size, columns, channels / groups, taps, packed + g * packed_group);
}

// As many panels as an item may have, in items of one size where there is such a number: threads that have
// equally many of them end together.
static int64_t panels_of(int64_t all) {
  for (int64_t panels = PANELS_OF_ITEM; panels > PANELS_OF_ITEM / 2; --panels)
    if (all % panels == 0) return panels;
  return PANELS_OF_ITEM;
}

// Where there are few rows the threads share out the columns, so that no part of the weight is read twice.
static ConvBlocks blocks_of(const ConvParams& p, int64_t threads) {
  const int64_t all = ConvBlocks::all_panels(p), rows = p.rows();
  const int64_t work = rows * p.depth() * p.out_channels;
  const int64_t wanted = threads == 1 ? 1 : work / LARGE_ITEM >= 4 * threads ? 4 * threads : threads;
  int64_t blocks = ConvBlocks::parts_of(rows, ROWS_OF_ITEM), parts = ConvBlocks::parts_of(all, panels_of(all));
  if (blocks == 1) parts = std::max(parts, std::min(all, ConvBlocks::parts_of(wanted, p.groups)));
  if (blocks * parts * p.groups < wanted) blocks = ConvBlocks::parts_of(wanted, parts * p.groups);
  if (parts * p.groups % threads != 0) blocks = ConvBlocks::parts_of(blocks, threads) * threads;
  ConvBlocks found;
  found.rows = ConvBlocks::parts_of(rows, std::min(blocks, rows));
  found.panels = ConvBlocks::parts_of(all, parts);
  return found;
}

static Task depthwise_task(const ConvParams& p) {
  Task task;
  const int64_t rows = std::max<int64_t>(1, DEPTHWISE_ITEM / p.channels);
  task.items = ConvBlocks::parts_of(p.rows(), rows);
  task.work = p.rows() * p.channels * p.taps();
  task.run = [p, rows](int64_t item, float*) {
    kernels().depthwise(p, item * rows, std::min((item + 1) * rows, p.rows()));
  };
  return task;
}

Task conv_task(const ConvParams& p, int64_t threads) {
  if (p.half) return conv_bf16_task(p, threads);
  if (p.depthwise()) return depthwise_task(p);
  const ConvBlocks blocks = blocks_of(p, threads);
  Task task;
  task.items = blocks.items(p);
  task.scratch = blocks.scratch();
  task.work = p.rows() * p.depth() * p.out_channels;
  task.run = [p, blocks](int64_t item, float* scratch) { kernels().conv(p, blocks, item, scratch); };
  return task;
}

}  // namespace de
