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
  const int64_t channels, vector;  // distance to the next vector
  const float* ahead;              // what is asked for meanwhile, and its distance
  int64_t ahead_vector;

  WeightPanel(const float* point, int64_t channels, int64_t from, int vectors)
      : data(point + from / SIZE * channels * SIZE + from % SIZE), channels(channels),
        vector(SHARED ? W : channels * SIZE), ahead(data + (SHARED ? 1 : vectors) * channels * SIZE),
        ahead_vector(vector) {}
};

// products [R][V W] = (add: +) rows of R tiles times a panel, of whose channels `chain` are summed before they are
// added to others. AHEAD also asks for what is read next: the processor's own prefetching ends with every page,
// and weights that come from memory take 10 to 20 % longer without.
template <int R, int V, bool AHEAD>
DE_INLINE void product(const float* a, int64_t row, const WeightPanel& panel, int64_t chain, float* to,
                       int64_t to_row, bool add) {
  Float total[R][V] = {};
  evenly(panel.channels, chain, [&](int64_t first, int64_t count) {
    Float sum[R][V] = {};
    for (int64_t c = first; c < first + count; ++c) {
      Float x[V];
      for (int v = 0; v < V; ++v) {
        x[v] = load<Float>(panel.data + v * panel.vector + c * WeightPanel::SIZE);
        if (AHEAD && (v == 0 || !WeightPanel::SHARED))
          __builtin_prefetch(panel.ahead + v * panel.ahead_vector + c * WeightPanel::SIZE, 0, 2);
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
          store(at, first || add ? load<Float>(at) + sum[r][v] : sum[r][v]);
        }
      }
  });
  if constexpr (TOTALS)
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) {
        float* at = to + r * to_row + v * W;
        store(at, add ? load<Float>(at) + total[r][v] : total[r][v]);
      }
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
  const int64_t chain;             // channels
  float *const input, *const products, *const zeros, *const weight;

  WinogradItem(const Conv3x3Params& p, const WinogradBlocks& blocks, int64_t block, float* scratch)
      : p(p), blocks(blocks), first(block * blocks.tiles),
        tiles(std::min(blocks.tiles, WinogradBlocks::all_tiles(p) - first)),
        row(WinogradBlocks::row(p.channels)), point(blocks.point(row)),
        to_row(WinogradBlocks::row(blocks.chunk)), to_point(blocks.point(to_row)), chain(summed(p.channels)), input(scratch),
        products(input + N * N * point), zeros(products + N * N * to_point),
        weight(zeros + row) {}

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
          each_tile(i, k, [&](auto rows, int64_t t, float* to) {
            const float* a = input + i * point + t * row;
            t == 0 ? product<rows, vectors, true>(a, row, panel, chain, to, to_row, false)
                   : product<rows, vectors, false>(a, row, panel, chain, to, to_row, false);
          });
        });
  }

  // The same where the weight is as it was given: it is transformed part by part, and none is read from memory
  // but the 9 numbers of a filter.
  void multiply_given(int64_t from, int64_t count) {
    const int64_t panels = count / PANEL, size = p.channels * 9 * PANEL;
    const float* given = p.weight + from / PANEL * size;
    evenly(p.channels, WinogradBlocks::PART, [&](int64_t first, int64_t many) {
      const float* part = given + first * 9 * PANEL;
      const int64_t next = WinogradBlocks::weight_point(panels, many);
      for (int64_t panel = 0; panel < panels; ++panel)
        transform(part + panel * size, many, weight + panel * many * PANEL, next);
      const float* after = first + many < p.channels ? part + many * 9 * PANEL : given + panels * size;
      for (int64_t i = 0; i < N * N; ++i)
        for (int64_t k = 0; k < count; k += 2 * W)
          constant<2>(std::min<int64_t>(2, (count - k) / W), [&](auto vectors) {
            WeightPanel panel(weight + i * next, many, k, vectors);
            panel.ahead = after + k / PANEL * size + i * many * PANEL;
            panel.ahead_vector = size;
            each_tile(i, k, [&](auto rows, int64_t t, float* to) {
              const float* a = input + i * point + t * row + first;
              t == 0 && i < 9 ? product<rows, vectors, true>(a, row, panel, chain, to, to_row, first > 0)
                              : product<rows, vectors, false>(a, row, panel, chain, to, to_row, first > 0);
            });
          });
    });
  }

  static void transform(const float* given, int64_t channels, float* to, int64_t next) {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t lane = 0; lane < PANEL; lane += W) {
        Float g[3][3];
        for (int tap = 0; tap < 9; ++tap) g[tap / 3][tap % 3] = load<Float>(given + (c * 9 + tap) * PANEL + lane);
        transform_weight<M>(g, [&](int64_t i, Float v) { store(to + i * next + c * PANEL + lane, v); });
      }
  }

  // Calls run(number of tiles, the first, where their products go).
  template <class Run>
  DE_INLINE void each_tile(int64_t i, int64_t k, Run run) {
    evenly(tiles, MOST_TILES, [&](int64_t t, int64_t many) {
      constant<MOST_TILES>(many, [&](auto rows) { run(rows, t, products + i * to_point + t * to_row + k); });
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
      p.given ? multiply_given(from, count) : multiply(from, count);
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
