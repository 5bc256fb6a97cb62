// One work item of a convolution: see conv.h for its layout.
#pragma once
#include "lanes.h"
#include "product_kernel.h"

namespace de {
namespace {

// The row of the left matrix that belongs to an output pixel. Its terms come in runs of taps whose pixels lie
// next to each other: a line of the kernel where the channels fill the rows, otherwise one tap.
struct ConvLines {
  const ConvParams& p;
  const int64_t channels, span, run, height, width, shift;

  explicit ConvLines(const ConvParams& p)
      : p(p), channels(p.group_channels()),
        span(p.x.row == p.channels && p.groups == 1 && p.dilation_x == 1 && p.upsample == 1 ? p.kernel_width
                                                                                            : 1),
        run(span * channels), height(p.height * p.upsample), width(p.width * p.upsample),
        shift(p.upsample == 2) {}

  // Terms [first, first + count) of the pixel (y, x) of a group whose channels begin at `image`.
  void gather(const float* image, int64_t y, int64_t x, int64_t first, int64_t count, float* to) const {
    const int64_t line = first / run, lines = p.kernel_width / span;
    int64_t ky = line / lines, kx = line % lines, skip = first % run;
    while (count > 0) {
      const int64_t terms = std::min(run - skip, count);
      copy(image, y * p.stride_y + ky * p.dilation_y - p.pad_top,
           x * p.stride_x + kx * p.dilation_x - p.pad_left, skip, terms, to);
      to += terms;
      count -= terms;
      skip = 0;
      if (++kx == lines) kx = 0, ++ky;
    }
  }

  // Terms [skip, skip + terms) of the run whose first pixel is (y, x) of the upsampled image.
  DE_INLINE void copy(const float* image, int64_t y, int64_t x, int64_t skip, int64_t terms, float* to) const {
    if (y < 0 || y >= height) return zero_over(to, terms);
    const float* from = image + ((y >> shift) * p.width + (x >> shift)) * p.x.row + skip;
    if (x >= 0 && x + span <= width) return copy_over(to, from, terms);
    const auto inside = [&](int64_t pixels) {
      return std::min(std::max<int64_t>(pixels * channels - skip, 0), terms);
    };
    const int64_t before = x < 0 ? inside(-x) : 0, end = inside(width - x);
    zero_over(to, before);
    if (before < end) copy_over(to + before, from + before, end - before);
    const int64_t rest = std::max(before, end);
    zero_over(to + rest, terms - rest);
  }
};

struct ConvItem {
  const ConvParams& p;
  const ConvBlocks& blocks;
  const int64_t panels, columns;  // of a group
  const int64_t group, first, rows, panel, count;  // the item's rows and columns
  float *const terms, *const sums;

  ConvItem(const ConvParams& p, const ConvBlocks& blocks, int64_t block, int64_t part, float* scratch)
      : p(p), blocks(blocks), panels(ConvBlocks::all_panels(p)), columns(p.group_columns()),
        group(part / blocks.panel_parts(p)), first(block * blocks.rows),
        rows(std::min(blocks.rows, p.rows() - first)), panel(part % blocks.panel_parts(p) * blocks.panels),
        count(std::min(blocks.panels * CONV_PANEL, columns - panel * CONV_PANEL)), terms(scratch),
        sums(scratch + blocks.rows * ConvBlocks::ROW) {}

  // Calls run(row of the item, sample, pixel).
  template <class Run>
  DE_INLINE void each_row(int64_t from, int64_t number, Run run) {
    int64_t b = (first + from) / p.pixels(), i = (first + from) % p.pixels();
    for (int64_t r = from; r < from + number; ++r) {
      run(r, b, i);
      if (++i == p.pixels()) i = 0, ++b;
    }
  }

  void gather(const ConvLines& lines, int64_t k, int64_t depth) {
    int64_t y = first % p.pixels() / p.out_width, x = first % p.out_width;
    each_row(0, rows, [&](int64_t r, int64_t b, int64_t) {
      const float* image = p.x.data + b * p.x.batch + group * lines.channels;
      lines.gather(image, y, x, k, depth, terms + r * ConvBlocks::ROW);
      if (++x == p.out_width) x = 0, y = y + 1 == p.out_height ? 0 : y + 1;
    });
  }

  // Rows [from, from + number) of the vector of columns that is the item's `column` and the layer's `at`.
  template <bool WHOLE>
  DE_INLINE void finish_vector(int32_t activation, int64_t from, int64_t number, int64_t column, int64_t at,
                               Lanes<WHOLE> lanes) {
    const Epilogue& e = p.epilogue;
    const int64_t pixels = p.pixels(), step = blocks.sums_row();
    const Rows out = p.out, residual = e.residual;  // which no store of floats can change, as the compiler sees it
    const float* sum = sums + from * step + column;
    int64_t b = (first + from) / pixels, row = (first + from) % pixels;
    for (int64_t left = number; left > 0; ++b, row = 0) {
      const Followers follow(e, b, at, (int)lanes.n);
      const int64_t end = std::min(pixels, row + left);
      left -= end - row;
      for (; row < end; ++row, sum += step) {
        Float y = follow(load<Float>(sum), activation);
        if (residual.data) y += lanes.load(residual.data + b * residual.batch + row * residual.row + at);
        lanes.store(out.data + b * out.batch + row * out.row + at, y);
      }
    }
  }

  __attribute__((noinline)) void finish(int64_t from, int64_t number, int64_t column, int64_t width) {
    const int64_t at = group * columns + panel * CONV_PANEL + column;
    with_activation(p.epilogue.activation, [&](auto kind) {
      each_vector(width, [&](int64_t c, auto lanes) {
        finish_vector(kind, from, number, column + c, at + c, lanes);
      });
    });
  }

  void multiply(int64_t k, int64_t length) {
    const int64_t depth = p.depth(), after = k + length;
    const float* weight = p.weight + group * panels * CONV_PANEL * depth;
    const float* at = weight + (k * panels + panel * length) * CONV_PANEL;
    // The next part may be a term shorter: what is asked for is no more than likely.
    const float* next = after < depth ? weight + (after * panels + panel * length) * CONV_PANEL : at;
    const Left a = p.in_place() ? Left{p.x.data + first * p.x.row + group * p.group_channels() + k, p.x.row}
                                : Left{terms, ConvBlocks::ROW};
    multiply_panels(a, rows, at, next, length, count, sums, blocks.sums_row(), k > 0,
                    [&](int64_t r, int64_t number, int64_t column, int64_t width) {
                      if (after == depth) finish(r, number, column, width);
                    });
  }

  void multiply_narrow(int64_t k, int64_t length) {
    constexpr int TALL = W == 16 ? 4 : 2, MANY = (int)CONV_NARROW;
    const int64_t row = conv_narrow_row(p.depth());
    const float* weight = p.weight + group * columns * row + k;
    for (int64_t r = 0; r < rows; ++r) store(terms + r * ConvBlocks::ROW + length, Float{});
    constant<MANY>(columns, [&](auto many) {
      evenly(rows, TALL, [&](int64_t r, int64_t number) {
        constant<TALL>(number, [&](auto tall) {
          dots<tall, many>(terms + r * ConvBlocks::ROW, weight, row, length, sums + r * blocks.sums_row(),
                           blocks.sums_row(), k > 0);
        });
      });
    });
  }

  void finish_narrow() {
    each_row(0, rows, [&](int64_t r, int64_t b, int64_t i) {
      const float* sum = sums + r * blocks.sums_row();
      float totals[std::max(W, (int)CONV_NARROW)] = {};
      for (int64_t n = 0; n < columns; ++n) totals[n] = sum_lanes(load<Float>(sum + n * W));
      finish_row(p.epilogue, p.out, b, i, group * columns, columns, totals);
    });
  }

  void run() {
    const ConvLines lines(p);
    evenly(p.depth(), CONV_DEPTH, [&](int64_t k, int64_t length) {
      if (!p.in_place()) gather(lines, k, length);
      p.narrow() ? multiply_narrow(k, length) : multiply(k, length);
    });
    if (p.narrow()) finish_narrow();
  }
};

inline void conv(const ConvParams& p, const ConvBlocks& blocks, int64_t item, float* scratch) {
  const int64_t parts = blocks.panel_parts(p) * p.groups;
  ConvItem(p, blocks, item / parts, item % parts, scratch).run();
}

// Rows [first, last) of a layer whose channels do not meet.
inline void depthwise(const ConvParams& p, int64_t first, int64_t last) {
  const int64_t height = p.height * p.upsample, width = p.width * p.upsample, shift = p.upsample == 2;
  for (int64_t row = first; row < last; ++row) {
    const int64_t b = row / p.pixels(), i = row % p.pixels();
    const int64_t top = i / p.out_width * p.stride_y - p.pad_top;
    const int64_t left = i % p.out_width * p.stride_x - p.pad_left;
    for (int64_t c = 0; c < p.channels; c += W) {
      const int n = (int)std::min<int64_t>(W, p.channels - c);
      Float sum = {};
      for (int64_t tap = 0; tap < p.taps(); ++tap) {
        const int64_t y = top + tap / p.kernel_width * p.dilation_y;
        const int64_t x = left + tap % p.kernel_width * p.dilation_x;
        if (y < 0 || y >= height || x < 0 || x >= width) continue;
        const int64_t pixel = (y >> shift) * p.width + (x >> shift);
        const Float value = load_some(p.x.data + b * p.x.batch + pixel * p.x.row + c, n);
        sum = multiply_add(value, load_some(p.weight + tap * p.channels + c, n), sum);
      }
      float sums[W];
      store(sums, sum);
      finish_row(p.epilogue, p.out, b, i, c, n, sums);
    }
  }
}

}  // namespace
}  // namespace de
