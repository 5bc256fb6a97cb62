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
WinogradBlocks WinogradBlocks::of(const Conv3x3Params& p, int64_t threads) {
  const int64_t tiles = all_tiles(p);
  const int64_t panels = across(p.out_channels, PANEL);
  int64_t blocks = across(tiles, TILES), parts = 1;
  if (blocks < threads)
    parts = across(threads, blocks);
  else
    blocks = round_up(blocks, threads);
  WinogradBlocks found;
  found.tiles = across(tiles, blocks);
  found.channels = across(panels, std::min(parts, panels)) * PANEL;
  found.chunk = std::min(found.channels, p.given ? GROUP : CHUNK);
  return found;
}

void run_conv3x3(const Conv3x3Params& p) {
  const auto conv3x3 = kernels().conv3x3;
  const int64_t wanted = std::min<int64_t>(omp_get_max_threads(), WinogradBlocks::work(p) / PER_THREAD);
  int64_t threads = std::max<int64_t>(1, wanted);
  const WinogradBlocks blocks = WinogradBlocks::of(p, threads);
  const int64_t items = blocks.items(p), floats = blocks.scratch(p);
  threads = std::min(threads, items);
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)threads) if (threads > 1)
  for (int64_t item = 0; item < items; ++item) conv3x3(p, blocks, item, scratch(floats));
}

}  // namespace de
