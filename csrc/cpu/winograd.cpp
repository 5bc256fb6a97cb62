#include "winograd.h"

#include <omp.h>

#include "run.h"
#include "scratch.h"

namespace de {

// Another thread is worth its waking from so many multiplications on.
constexpr int64_t PER_THREAD = 1 << 20;
// Tiles of an item, which are what a transformed weight is read for: of 6 to 64 the times of 16 to 32
// differ by some 5 % at 128 to 1280 channels, and 6 take up to 40 % longer.
constexpr int64_t TILES = 24;
// Output channels whose products are kept at a time: 64 to 256 make no difference, more leave the
// second cache.
constexpr int64_t CHUNK = 128;

// Where there are too few tiles for the threads, they share out the output channels: no part of the
// weight, which is larger than a small map, is read twice.
static WinogradBlocks blocks_of(const Conv3x3Params& p, int64_t threads) {
  constexpr int64_t PANEL = WinogradBlocks::PANEL;
  const int64_t tiles = WinogradBlocks::all_tiles(p);
  const int64_t panels = WinogradBlocks::across(p.out_channels, PANEL);
  int64_t blocks = WinogradBlocks::across(tiles, TILES), parts = 1;
  if (blocks < threads)
    parts = WinogradBlocks::across(threads, blocks);
  else
    blocks = WinogradBlocks::round_up(blocks, threads);
  WinogradBlocks found;
  found.tiles = WinogradBlocks::across(tiles, blocks);
  found.channels = WinogradBlocks::across(panels, std::min(parts, panels)) * PANEL;
  found.chunk = std::min(found.channels, CHUNK);
  return found;
}

void run_conv3x3(const Conv3x3Params& p) {
  const auto conv3x3 = kernels().conv3x3;
  const int64_t work =
      WinogradBlocks::all_tiles(p) * WinogradBlocks::points(p) * p.channels * p.out_channels;
  int64_t threads = std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), work / PER_THREAD));
  const WinogradBlocks blocks = blocks_of(p, threads);
  const int64_t items = blocks.items(p), floats = blocks.scratch(p);
  threads = std::min(threads, items);
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)threads) if (threads > 1)
  for (int64_t item = 0; item < items; ++item) conv3x3(p, blocks, item, scratch(floats));
}

}  // namespace de
