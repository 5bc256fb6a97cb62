// One work item of conv3x3: see ops/conv3x3.py for the definition. A block of tiles is transformed to
// rows of input channels, one set of rows for each point; every point is a matrix product of its own;
// the products of a tile become its pixels.
#pragma once
#include "native/epilogue_kernel.h"
#include "winograd.h"
#include "winograd_points.h"
#include "winograd_window.h"

namespace de {
namespace {

// Of a product in registers: 2 vectors of sums each, and with 32 registers as many of totals.
constexpr bool TOTALS = W == 16;
constexpr int MOST_TILES = TOTALS ? 7 : 6;

// Input channels that are summed before they are added to others: ops/conv3x3.py has the errors with
// these. Against sums of 32, 16 take 4 to 10 % longer, 64 up to 4 % less, one chain of all no less than 64.
inline int64_t summed(int64_t channels) { return channels < 128 ? 16 : channels < 256 ? 32 : 64; }

// What V vectors of output channels have in a packed weight: they lie in one panel, or in one each.
struct WeightPanel {
  static constexpr int64_t SIZE = WinogradBlocks::PANEL;
  static constexpr bool SHARED = W < SIZE;

  const float* data;
  const int64_t channels;
  const int64_t vector, next;  // distances to the next vector, and to what is read after these

  WeightPanel(const float* point, int64_t channels, int64_t from, int vectors)
      : data(point + from / SIZE * channels * SIZE + from % SIZE), channels(channels),
        vector(SHARED ? W : channels * SIZE), next((SHARED ? 1 : vectors) * channels * SIZE) {}
};

// products [R][V W] = rows of R tiles times a panel. AHEAD also asks for the next panel: the processor's
// own prefetching ends with every page, and weights that come from memory take 10 to 20 % longer without.
template <int R, int V, bool AHEAD>
DE_INLINE void product(const float* a, int64_t row, const WeightPanel& panel, float* to, int64_t to_row) {
  Float total[R][V] = {};
  evenly(panel.channels, summed(panel.channels), [&](int64_t first, int64_t count) {
    Float sum[R][V] = {};
    for (int64_t c = first; c < first + count; ++c) {
      Float x[V];
      for (int v = 0; v < V; ++v) {
        const float* at = panel.data + v * panel.vector + c * WeightPanel::SIZE;
        x[v] = load<Float>(at);
        if (AHEAD && (v == 0 || !WeightPanel::SHARED)) __builtin_prefetch(at + panel.next, 0, 2);
      }
      for (int r = 0; r < R; ++r) {
        const Float factor = splat(a[r * row + c]);
        for (int v = 0; v < V; ++v) sum[r][v] = multiply_add(factor, x[v], sum[r][v]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) {
        if constexpr (TOTALS) {
          total[r][v] = first ? total[r][v] + sum[r][v] : sum[r][v];
        } else {
          float* at = to + r * to_row + v * W;
          store(at, first ? load<Float>(at) + sum[r][v] : sum[r][v]);
        }
      }
  });
  if constexpr (TOTALS)
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) store(to + r * to_row + v * W, total[r][v]);
}

template <int M>
struct WinogradItem {
  static constexpr int N = M + 2;
  static constexpr int64_t PANEL = WinogradBlocks::PANEL;

  const Conv3x3Params& p;
  const WinogradBlocks& blocks;
  const int64_t first, tiles;      // of the block
  const int64_t row, point;        // of the transformed input
  const int64_t to_row, to_point;  // of the products
  float *const input, *const products, *const zeros;

  WinogradItem(const Conv3x3Params& p, const WinogradBlocks& blocks, int64_t block, float* scratch)
      : p(p), blocks(blocks), first(block * blocks.tiles),
        tiles(std::min(blocks.tiles, WinogradBlocks::all_tiles(p) - first)),
        row(WinogradBlocks::row(p.channels)), point(blocks.point(row)),
        to_row(WinogradBlocks::row(blocks.chunk)), to_point(blocks.point(to_row)), input(scratch),
        products(input + N * N * point), zeros(products + N * N * to_point) {}

  void read() {
    std::memset(zeros, 0, sizeof(float) * (size_t)row);
    for (int64_t t = 0; t < tiles; ++t) {
      const Window<N> window(p, Tile(p, first + t), zeros);
      for (int64_t c = 0; c < p.channels; c += W) {
        const int n = (int)std::min<int64_t>(W, p.channels - c);
        Float d[N][N];
        p.x_last ? window.read_last(c, n, d) : window.read_first(c, n, d);
        float* to = input + t * row + c;
        transform_input<M>(d, [&](int64_t i, Float v) { store(to + i * point, v); });
      }
    }
  }

  // Of the output channels [from, from + count).
  void multiply(int64_t from, int64_t count) {
    const int64_t size = WinogradBlocks::round_up(p.out_channels, PANEL) * p.channels;
    for (int64_t i = 0; i < N * N; ++i)
      for (int64_t k = 0; k < count; k += 2 * W)
        constant<2>(std::min<int64_t>(2, (count - k) / W), [&](auto vectors) {
          const WeightPanel panel(p.weight + i * size, p.channels, from + k, vectors);
          evenly(tiles, MOST_TILES, [&](int64_t t, int64_t many) {
            const float* a = input + i * point + t * row;
            float* to = products + i * to_point + t * to_row + k;
            constant<MOST_TILES>(many, [&](auto rows) {
              t == 0 ? product<rows, vectors, true>(a, row, panel, to, to_row)
                     : product<rows, vectors, false>(a, row, panel, to, to_row);
            });
          });
        });
  }

  void write(int64_t from, int64_t count) {
    count = std::min(count, p.out_channels - from);
    const Epilogue& e = p.followers;
    const bool followed = e.shift || e.gate || e.activation != NO_ACTIVATION;
    for (int64_t t = 0; t < tiles; ++t) {
      const Tile tile(p, first + t);
      const Target<M> target(p, tile);
      for (int64_t k = 0; k < count; k += W) {
        const int n = (int)std::min<int64_t>(W, count - k);
        const float* at = products + t * to_row + k;
        Float y[M][M], bias = {};
        if (p.bias) bias = n == W ? load<Float>(p.bias + from + k) : load_lanes(p.bias + from + k, 0, n);
        transform_output<M>([&](int64_t i) { return load<Float>(at + i * to_point); }, y);
        for (auto& line : y)
          for (Float& value : line) value += bias;
        if (followed) Followers(p.followers, tile.b, from + k, n).each(&y[0][0], M * M);
        p.out_last ? target.write_last(from + k, n, y) : target.write_first(from + k, n, y);
      }
    }
  }

  void run(int64_t part) {
    read();
    const int64_t all = WinogradBlocks::round_up(p.out_channels, PANEL);
    const int64_t end = std::min((part + 1) * blocks.channels, all);
    for (int64_t from = part * blocks.channels; from < end; from += blocks.chunk) {
      const int64_t count = std::min(blocks.chunk, end - from);
      multiply(from, count);
      write(from, count);
    }
  }
};

inline void conv3x3(const Conv3x3Params& p, const WinogradBlocks& blocks, int64_t item, float* scratch) {
  const int64_t parts = blocks.parts(p), block = item / parts, part = item % parts;
  if (p.tile == 2) return WinogradItem<2>(p, blocks, block, scratch).run(part);
  WinogradItem<4>(p, blocks, block, scratch).run(part);
}

}  // namespace
}  // namespace de
