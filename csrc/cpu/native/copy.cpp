#include "copy.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace de {

// Elements of an item, and the rows and columns of a tile of a transposition.
constexpr int64_t GRAIN = 8192, TILE = 16;
constexpr int64_t SHORT = 8;  // elements

namespace {

struct Axis {
  int64_t size, inside, before, x, out;

  bool padded() const { return before != 0 || inside != size; }
};

// out's order of memory, and as few axes as the strides allow.
std::vector<Axis> axes_of(const CopyParams& p) {
  std::vector<Axis> all;
  for (int i = 0; i < CopyParams::AXES; ++i) {
    const Axis axis{p.sizes[i], p.inside[i] < 0 ? p.sizes[i] : p.inside[i], p.before[i], p.x_strides[i],
                    p.out_strides[i]};
    if (axis.size != 1 || axis.padded()) all.push_back(axis);
  }
  std::stable_sort(all.begin(), all.end(), [](const Axis& a, const Axis& b) { return a.out > b.out; });
  std::vector<Axis> found;
  for (const Axis& a : all) {
    Axis* outer = found.empty() ? nullptr : &found.back();
    if (outer && !a.padded() && outer->x == a.x * a.size && outer->out == a.out * a.size)
      *outer = {outer->size * a.size, outer->inside * a.size, outer->before * a.size, a.x, a.out};
    else
      found.push_back(a);
  }
  // A walk along few elements would be all overhead: the longest axis takes the place of the last.
  const auto longest = std::max_element(found.begin(), found.end(),
                                        [](const Axis& a, const Axis& b) { return a.size < b.size; });
  if (!found.empty() && found.back().size < SHORT) std::rotate(longest, longest + 1, found.end());
  while (found.size() < 2) found.insert(found.begin(), {1, 1, 0, 0, 0});
  return found;
}

// Columns [first, last) of one row.
void copy_row(const Axis& a, const float* x, float* out, float value, int64_t first, int64_t last) {
  const int64_t start = std::clamp(a.before, first, last);
  const int64_t end = std::clamp(a.before + a.inside, start, last);
  for (int64_t i = first; i < start; ++i) out[i * a.out] = value;
  const float* from = x + (start - a.before) * a.x;
  if (a.x == 1 && a.out == 1)
    std::memcpy(out + start, from, (end - start) * sizeof(float));
  else
    for (int64_t i = start; i < end; ++i) out[i * a.out] = from[(i - start) * a.x];
  for (int64_t i = end; i < last; ++i) out[i * a.out] = value;
}

void fill_row(const Axis& a, float* out, float value, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) out[i * a.out] = value;
}

struct Copy {
  const float* x;
  float* out;
  float value;
  std::vector<Axis> outer;  // rows
  Axis inner;
  int64_t parts, rows;  // of a row, and of an item

  // Where row `index` starts; false where all of it is padding.
  bool at(int64_t index, int64_t count, const float** from, float** to) const {
    bool inside = true;
    *from = x;
    *to = out;
    for (int64_t k = count; k-- > 0;) {
      const Axis& a = outer[k];
      const int64_t i = index % a.size, j = i - a.before;
      index /= a.size;
      inside = inside && j >= 0 && j < a.inside;
      *from += j * a.x;
      *to += i * a.out;
    }
    return inside;
  }

  int64_t count(size_t axes) const {
    int64_t product = 1;
    for (size_t k = 0; k < axes; ++k) product *= outer[k].size;
    return product;
  }

  void plain(int64_t item) const {
    const int64_t all = count(outer.size()), part = (inner.size + parts - 1) / parts;
    const int64_t column = item % parts * part, end = std::min(column + part, inner.size);
    const int64_t first = item / parts * rows, last = std::min(first + rows, all);
    for (int64_t row = first; row < last; ++row) {
      const float* from;
      float* to;
      if (at(row, outer.size(), &from, &to))
        copy_row(inner, from, to, value, column, end);
      else
        fill_row(inner, to, value, column, end);
    }
  }

  // `rows` of the last outer axis, along which x lies together, and all columns.
  void transposed(int64_t item) const {
    const Axis& across = outer.back();
    const int64_t blocks = (across.size + rows - 1) / rows;
    const float* from;
    float* to;
    at(item / blocks, outer.size() - 1, &from, &to);
    const int64_t first = item % blocks * rows, last = std::min(first + rows, across.size);
    for (int64_t column = 0; column < inner.size; column += TILE) {
      const int64_t end = std::min(column + TILE, inner.size);
      for (int64_t r = first; r < last; ++r)
        for (int64_t c = column; c < end; ++c) to[r * across.out + c] = from[r + c * inner.x];
    }
  }
};

}  // namespace

Task copy_task(const CopyParams& p, int64_t) {
  std::vector<Axis> axes = axes_of(p);
  Copy copy{p.x, p.out, p.value, {}, axes.back(), 1, TILE};
  axes.pop_back();
  copy.outer = std::move(axes);
  const Axis &inner = copy.inner, &across = copy.outer.back();
  const int64_t all = copy.count(copy.outer.size());
  Task task;
  task.work = all * inner.size;
  task.items = 0;
  if (task.work == 0) return task;
  bool padded = inner.padded();
  for (const Axis& a : copy.outer) padded = padded || a.padded();
  if (!padded && inner.out == 1 && inner.x != 1 && across.x == 1) {
    task.items = copy.count(copy.outer.size() - 1) * ((across.size + TILE - 1) / TILE);
    task.run = [copy](int64_t item, float*) { copy.transposed(item); };
    return task;
  }
  copy.parts = (inner.size + GRAIN - 1) / GRAIN;
  copy.rows = std::max<int64_t>(1, GRAIN / inner.size);
  task.items = copy.parts * ((all + copy.rows - 1) / copy.rows);
  task.run = [copy](int64_t item, float*) { copy.plain(item); };
  return task;
}

}  // namespace de
