// group_norm of some groups of one sample: statistics in one walk over x, the result in a second.
// Included once for every instruction set.
#pragma once
#include <algorithm>
#include <vector>

#include "exp.h"
#include "group_norm.h"
#include "moments.h"
#include "rows.h"

namespace de {
namespace {

constexpr int64_t PART_FLOATS = 4096;  // of a row, 16 KiB: half of the first cache
constexpr int64_t SHORT = 64;          // pixels of a channel that are too few for a loop of their own

// What a channel does to its values: silu((x + residual - center) factor + offset).
struct Coefficients {
  const float *residual, *center, *factor, *offset;
};

template <bool SILU, bool RESIDUAL>
DE_INLINE Float finish(Float x, Float residual, Float center, Float factor, Float offset) {
  const Float y = multiply_add((RESIDUAL ? x + residual : x) - center, factor, offset);
  return SILU ? silu(y) : y;
}

// n values whose coefficients are vectors, or one number each.
template <bool SILU, bool RESIDUAL, bool VECTORS>
void finish_row(const float* x, float* out, int64_t n, const Coefficients& k) {
  const auto of = [](const float* v, int64_t i) { return VECTORS ? load<Float>(v + i) : splat(*v); };
  int64_t i = 0;
  for (; i + W <= n; i += W)
    store(out + i,
          finish<SILU, RESIDUAL>(load<Float>(x + i), RESIDUAL ? of(k.residual, i) : Float{},
                                 of(k.center, i), of(k.factor, i), of(k.offset, i)));
  for (; i < n; ++i) {
    const int64_t j = VECTORS ? i : 0;
    out[i] = finish<SILU, RESIDUAL>(splat(x[i]), splat(RESIDUAL ? k.residual[j] : 0.0f), splat(k.center[j]),
                                    splat(k.factor[j]), splat(k.offset[j]))[0];
  }
}

typedef void (*FinishRow)(const float*, float*, int64_t, const Coefficients&);

inline FinishRow finish_row(bool silu, bool residual, bool vectors) {
  static const FinishRow rows[2][2][2] = {
      {{finish_row<false, false, false>, finish_row<false, false, true>},
       {finish_row<false, true, false>, finish_row<false, true, true>}},
      {{finish_row<true, false, false>, finish_row<true, false, true>},
       {finish_row<true, true, false>, finish_row<true, true, true>}},
  };
  return rows[silu][residual][vectors];
}

// A thread's own; small maps would spend more time on allocating it than on their elements.
struct Scratch {
  std::vector<float> in, out, columns;
};

// The channels [first, first + channels) of sample b, as rows: pixels of channels, or channels of
// pixels.
struct Item {
  const GroupNormParams& p;
  const int64_t b, first, channels;
  const bool by_pixel;
  const int64_t count, length;  // of the rows
  const FinishRow run;
  std::vector<float>&in, &out, &columns;

  Item(const GroupNormParams& p, int64_t b, int64_t first, int64_t channels, Scratch& s)
      : p(p), b(b), first(first), channels(channels), by_pixel(rows_are_pixels(p)),
        count(by_pixel ? p.pixels : channels), length(by_pixel ? channels : p.pixels),
        run(finish_row(p.silu, residual_per_channel(p), by_pixel)), in(s.in), out(s.out),
        columns(s.columns) {}

  bool full_residual() const { return p.residual.data && !residual_per_channel(p); }
  bool direct() const { return p.x.dtype == F32 && !full_residual(); }
  int64_t step() const { return by_pixel ? p.x.pixel : p.x.channel; }  // of the rows of x

  char* at(const View& v, int64_t row, int64_t column) const {
    const int64_t c = first + (by_pixel ? column : row), px = by_pixel ? row : column;
    return (char*)v.data + (b * v.batch + c * v.channel + px * v.pixel) * size_of(v.dtype);
  }

  // x + a full residual: where x lies, if that is all, or in the buffer.
  const float* read(int64_t row, int64_t column, int64_t n, float* buffer) const {
    const float* x = read_row(at(p.x, row, column), p.x.dtype, n, buffer);
    if (!full_residual()) return x;
    return add_row(x, at(p.residual, row, column), p.residual.dtype, n, buffer);
  }

  void write(const float* x, int64_t row, int64_t column, int64_t n, const Affine& affine) {
    // One of the two may overwrite x.
    const bool last = p.summed.data && p.summed.data == p.x.data;
    if (p.summed.data && !last) write_sum(x, row, column, n, affine);
    write_norm(x, row, column, n, affine);
    if (last) write_sum(x, row, column, n, affine);
  }

  void write_norm(const float* x, int64_t row, int64_t column, int64_t n, const Affine& a) {
    const int64_t c = by_pixel ? column : row;
    float* to = p.out.dtype == F32 ? (float*)at(p.out, row, column) : out.data();
    run(x, to, n, {&a.residual[c], &a.center[c], &a.factor[c], &a.offset[c]});
    if (to == out.data()) write_row(at(p.out, row, column), p.out.dtype, n, to);
  }

  void write_sum(const float* x, int64_t row, int64_t column, int64_t n, const Affine& affine) {
    const float* residual = &affine.residual[by_pixel ? column : row];
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] + residual[by_pixel ? i : 0];
    write_row(at(p.summed, row, column), p.summed.dtype, n, out.data());
  }

  // Rows are channels of one group: parts of a row at a time, or of several that follow each other.
  void normalize_channels(Affine& affine) {
    const bool dense = direct() && step() == length && !p.residual.data;
    const int64_t rows = dense ? 1 : count, n = dense ? count * length : length;
    in.resize(std::min(n, PART_FLOATS)), out.resize(std::min(n, PART_FLOATS));
    Moments moments;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t i = 0; i < n; i += PART_FLOATS) {
        const int64_t part = std::min(n - i, PART_FLOATS);
        add_moments(moments, read(row, i, part, in.data()), part, affine.residual[row]);
      }
    affine.fill(p, b, first * p.groups / p.channels, moments);
    if (dense && length < SHORT && p.out.dtype == F32 && p.out.channel == length && !p.summed.data)
      return write_repeated(affine);
    for (int64_t row = 0; row < count; ++row)
      for (int64_t i = 0; i < length; i += PART_FLOATS) {
        const int64_t part = std::min(length - i, PART_FLOATS);
        write(read(row, i, part, in.data()), row, i, part, affine);
      }
  }

  // All channels as one row, each coefficient repeated for its pixels.
  void write_repeated(const Affine& a) {
    const int64_t n = count * length;
    columns.resize(3 * n);
    float* to = columns.data();
    for (const auto* from : {&a.center, &a.factor, &a.offset})
      for (int64_t c = 0; c < count; ++c, to += length) std::fill_n(to, length, (*from)[c]);
    const float* k = columns.data();
    finish_row(p.silu, false, true)((const float*)at(p.x, 0, 0), (float*)at(p.out, 0, 0), n,
                                    {nullptr, k, k + n, k + 2 * n});
  }

  // Rows are pixels: the moments [3][length] of each channel over the rows [row, last), tile by tile.
  // The pivots are the sample's first pixel.
  void add_rows(int64_t row, int64_t last, float* columns) {
    const int64_t tile = rows_of_tile(p), begin = row;
    std::fill_n(columns, 2 * length, 0.0f);
    copy(0, columns + 2 * length);
    in.resize(direct() ? 0 : tile * length);
    for (; row < last; row += tile) {
      const int64_t rows = std::min(tile, last - row);
      for (int64_t r = 0; r < rows && !direct(); ++r) copy(row + r, in.data() + r * length);
      const float* x = direct() ? (const float*)at(p.x, row, 0) : in.data();
      add_columns(x, length, rows, direct() ? step() : length, row - begin, columns);
    }
  }

  void write_rows(int64_t row, int64_t last, const Affine& affine) {
    in.resize(length), out.resize(length);
    for (; row < last; ++row) write(read(row, 0, length, in.data()), row, 0, length, affine);
  }

  void normalize_pixels(Affine& affine) {
    columns.resize(3 * length);
    add_rows(0, count, columns.data());
    affine.fill(p, b, columns.data());
    write_rows(0, count, affine);
  }

  void copy(int64_t row, float* to) const {
    const float* x = read(row, 0, length, to);
    if (x != to) std::copy(x, x + length, to);
  }
};

// Groups [first, last) of sample b.
void group_norm(const GroupNormParams& p, int64_t b, int64_t first, int64_t last) {
  static thread_local Scratch scratch;
  static thread_local Affine affine;
  const int64_t size = p.channels / p.groups, channels = (last - first) * size;
  affine.reset(p, b, first * size, channels);
  Item item(p, b, first * size, channels, scratch);
  if (item.by_pixel)
    item.normalize_pixels(affine);
  else
    item.normalize_channels(affine);
}

void column_moments(const GroupNormParams& p, int64_t b, int64_t row, int64_t last, float* columns) {
  static thread_local Scratch scratch;
  Item(p, b, 0, p.channels, scratch).add_rows(row, last, columns);
}

void normalize_rows(const GroupNormParams& p, int64_t b, int64_t row, int64_t last, const Affine& affine) {
  static thread_local Scratch scratch;
  Item(p, b, 0, p.channels, scratch).write_rows(row, last, affine);
}

}  // namespace
}  // namespace de
