// One work item of a convolution in bf16: see conv_bf16.h for its layout.
#pragma once
#include "../epilogue_kernel.h"
#include "../lanes.h"
#include "conv_bf16.h"
#include "product.h"

namespace de {
namespace {

struct HalfConvItem {
  const ConvParams& p;
  const HalfConvBlocks& blocks;
  int64_t sample, samples, line, lines, column, panel, panels;  // the item's
  float* const sums;
  uint16_t* const strips;

  HalfConvItem(const ConvParams& p, const HalfConvBlocks& blocks, int64_t item, float* scratch)
      : p(p), blocks(blocks), sums(scratch), strips((uint16_t*)(scratch + HALF_ROWS * HALF_COLUMNS)) {
    // Items that are next to one another, which one thread runs, have the same panels.
    const auto part = [&](int64_t all, int64_t size, int64_t& first) {
      const int64_t parts = ConvBlocks::parts_of(all, size);
      first = item % parts * size, item /= parts;
      return std::min(size, all - first);
    };
    part(p.out_width, blocks.columns, column);
    lines = part(blocks.all_lines(p), blocks.lines, line);
    samples = part(blocks.all_samples(p), blocks.samples, sample);
    panels = part(ConvBlocks::parts_of(p.out_channels, HALF_COLUMNS), blocks.panels, panel);
  }

  void round_pixel(const float* from, uint16_t* to) const {
    const int64_t room = ConvBlocks::parts_of(p.channels, HALF_TERMS) * HALF_TERMS;
    int64_t end = 0;
    each_vector(p.channels, [&](int64_t c, auto lanes) {
      store(to + c, narrow(lanes.load(from + c)));
      end = c + W;
    });
    for (; end < room; end += W) store(to + end, Half{});
  }

  // Pixels from x on of a strip's line, for column j of the kernel: line y of the upsampled picture of sample b.
  void round_line(int64_t b, int64_t y, int64_t j, int64_t x, uint16_t* to) const {
    const int64_t shift = p.upsample == 2;
    const bool outside = y < 0 || y >= p.height * p.upsample;
    const float* from = outside ? nullptr : p.x.data + b * p.x.batch + (y >> shift) * p.width * p.x.row;
    int64_t at = (column + x) * p.stride_x + j * p.dilation_x - p.pad_left;
    for (; x < blocks.columns; ++x, at += p.stride_x)
      if (outside || at < 0 || at >= p.width * p.upsample)
        std::memset(to + x * blocks.row, 0, blocks.row * sizeof *to);
      else
        round_pixel(from + (at >> shift) * p.x.row, to + x * blocks.row);
  }

  // That line of the strips of all columns. Those that are whole pixels away from the first have most in common.
  void fill_line(int64_t b, int64_t y, uint16_t* to) const {
    round_line(b, y, 0, 0, to);
    for (int64_t j = 1; j < p.kernel_width; ++j) {
      const int64_t away = j * p.dilation_x, before = std::min(away / p.stride_x, blocks.columns);
      const int64_t common = away % p.stride_x == 0 ? blocks.columns - before : 0;
      uint16_t* line = to + j * blocks.strip();
      std::memcpy(line, to + before * blocks.row, common * blocks.row * sizeof *line);
      round_line(b, y, j, common, line);
    }
  }

  // All strips of the item's sample s.
  void fill(int64_t s) const {
    int64_t b = blocks.list() ? line / p.out_height : sample + s;
    int64_t y = blocks.list() ? line % p.out_height : line;
    uint16_t* to = strips + s * blocks.sample(p);
    for (int64_t l = 0; l < lines + blocks.further; ++l, to += blocks.columns * blocks.row) {
      for (int64_t i = 0; i < blocks.phases; ++i)
        fill_line(b, y * p.stride_y + i * p.dilation_y - p.pad_top, to + i * p.kernel_width * blocks.strip());
      if (++y == p.out_height && blocks.list()) y = 0, ++b;
    }
  }

  // Calls run(first, count, sample, pixel) for those of rows [from, from + number) of the item's sample s that are
  // pixels of out, `count` of which follow one another there.
  template <class Run>
  DE_INLINE void each_run(int64_t s, int64_t from, int64_t number, Run run) const {
    const int64_t inside = std::min(blocks.columns, p.out_width - column);
    for (int64_t r = from, end = from + number; r < end;) {
      const int64_t at = line + r / blocks.columns, x = r % blocks.columns;
      const int64_t b = blocks.list() ? at / p.out_height : sample + s, y = at - (blocks.list() ? b * p.out_height : 0);
      const bool whole = blocks.columns == p.out_width;
      const int64_t rest = whole ? (p.out_height - y) * p.out_width - x : blocks.columns - x;
      const int64_t count = std::min(rest, end - r), valid = whole ? count : std::min(count, inside - x);
      if (valid > 0) run(r - from, valid, b, y * p.out_width + column + x);
      r += count;
    }
  }

  // `count` rows of sums from `first` on, which are `pixel` and those after it of sample b, in the vector of columns
  // that is c of the panel and `at` of out.
  template <bool WHOLE>
  DE_INLINE void finish_run(int32_t activation, int64_t first, int64_t count, int64_t b, int64_t pixel, int64_t c,
                            int64_t at, Lanes<WHOLE> lanes) const {
    const Rows out = p.out, residual = p.epilogue.residual;  // which no store of floats can change
    const Followers follow(p.epilogue, b, at, (int)lanes.n);
    const float* sum = sums + first * HALF_COLUMNS + c;
    for (int64_t i = pixel; i < pixel + count; ++i, sum += HALF_COLUMNS) {
      Float y = follow(load<Float>(sum), activation);
      if (residual.data) y += lanes.load(residual.data + b * residual.batch + i * residual.row + at);
      lanes.store(out.data + b * out.batch + i * out.row + at, y);
    }
  }

  // Rows [from, from + number) of the item's sample s and of a panel, whose sums there are.
  __attribute__((noinline)) void finish(int64_t s, int64_t from, int64_t number, int64_t first) const {
    const int64_t width = std::min(HALF_COLUMNS, p.out_channels - first);
    with_activation(p.epilogue.activation, [&](auto kind) {
      each_run(s, from, number, [&](int64_t r, int64_t count, int64_t b, int64_t pixel) {
        each_vector(width, [&](int64_t c, auto lanes) { finish_run(kind, r, count, b, pixel, c, first + c, lanes); });
      });
    });
  }

  // All rows of the item times one panel; each product asks memory for its share of the next.
  void multiply(const uint16_t* weight, int64_t first, bool last) const {
    const int64_t rows = lines * blocks.columns, products = samples * ConvBlocks::parts_of(rows, HALF_ROWS);
    const int64_t all = HALF_TERMS, share = last ? 0 : ConvBlocks::parts_of(all, products);  // lines of a block
    const int64_t room = ConvBlocks::parts_of(p.channels, HALF_TERMS) * HALF_TERMS;
    Pieces pieces{blocks.taps.data(), p.taps(), room / HALF_TERMS, (room - p.channels) / 2};
    const uint16_t* next = weight + blocks.panel(p);
    int64_t asked = 0;
    for (int64_t s = 0; s < samples; ++s)
      for (int64_t r = 0; r < rows; r += HALF_ROWS, asked += share) {
        pieces.lines = asked < all ? share : 0;
        pieces.ahead = next + asked * p.taps() * pieces.blocks * 32;
        const int64_t number = std::min(HALF_ROWS, rows - r);
        product(strips + s * blocks.sample(p) + r * blocks.row, blocks.row, pieces, weight, number, sums, HALF_COLUMNS,
                false);
        finish(s, r, number, first);
      }
  }

  void run() const {
    const Tiles tiles;
    for (int64_t s = 0; s < samples; ++s) fill(s);
    const uint16_t* weight = p.half + panel * blocks.panel(p);
    for (int64_t n = 0; n < panels; ++n, weight += blocks.panel(p))
      multiply(weight, (panel + n) * HALF_COLUMNS, n + 1 == panels);
  }
};

inline void conv_bf16(const ConvParams& p, const HalfConvBlocks& blocks, int64_t item, float* scratch) {
  HalfConvItem(p, blocks, item, scratch).run();
}

}  // namespace
}  // namespace de
