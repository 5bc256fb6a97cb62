// Checks of everything that an op uses as an index, for debug builds: see DEBUG in run.h.
#pragma once
#include <stdexcept>
#include <string>

#include "noise.h"
#include "step.h"

namespace de {

// name[i] or name[i, j].
inline std::string at(const char* name, int64_t i, int64_t j = -1) {
  return name + ("[" + std::to_string(i)) + (j < 0 ? "]" : ", " + std::to_string(j) + "]");
}

[[noreturn]] inline void refuse(const std::string& which, int64_t value, const std::string& wanted) {
  throw std::out_of_range(which + " is " + std::to_string(value) + "; it has to be " + wanted);
}

// `value` is -1 or one of `count` things.
inline void check_index(const std::string& which, int64_t value, int64_t count, const std::string& things) {
  if (value < -1 || value >= count)
    refuse(which, value, "-1 or one of the " + std::to_string(count) + " " + things);
}

template <class Params>
void check_rows(const std::string& op, const Params& p) {
  for (int64_t b = 0; p.row && b < p.batch; ++b)
    check_index(op + ": " + at("row", b), p.row[b], p.rows, "rows of the table");
}

inline void check_outputs(const StepParams& p, int64_t b, const int32_t* index) {
  for (int j = 0; p.src && p.tensors && j < p.outputs; ++j) {
    int32_t h = index[H + j];
    int t = 0;
    while (t < p.tensors && h >= p.blocks[t]) h -= p.blocks[t++];
    if (h < 0 || t == p.tensors) continue;  // no tensor has that block: the output counts as absent
    check_index("step: " + at("src", b, j), p.src[b * p.outputs + j], p.out_entries[t],
                "entries of network output " + std::to_string(t));
  }
}

inline void check_inputs(const StepParams& p, int64_t b, const int32_t* index) {
  if (!p.dst || !(p.net_in.data || p.label)) return;
  for (int g = 0; g < p.entries; ++g)
    check_index("step: " + at("dst", b, g), p.dst[b * p.entries + g], p.room, "entries of net_in and label");
  for (int i = 0; p.net_in.data && i < p.inputs; ++i)
    if (index[READ + i] < 0 || index[READ + i] >= p.slots)
      refuse("step: " + at("READ", i) + " of row " + std::to_string(p.row[b]), index[READ + i],
             "one of the " + std::to_string(p.slots) + " slots");
}

inline void check_indices(const StepParams& p) {
  check_rows("step", p);
  for (int64_t b = 0; b < p.batch; ++b) {
    if (p.row[b] < 0) continue;
    const int32_t* index = p.index + (int64_t)p.row[b] * INDEX;
    const std::string row = " of row " + std::to_string(p.row[b]);
    check_index("step: NEXT" + row, index[NEXT], p.rows, "rows of the table");
    if (p.learned && index[FLAGS] & LEARNED && p.tensors)
      check_index("step: JV" + row, index[JV], p.outputs, "outputs");
    check_outputs(p, b, index);
    check_inputs(p, b, index);
  }
}

inline void check_indices(const BrownianParams& p) {
  check_rows("brownian", p);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t draw = 0; p.row[b] >= 0 && draw < p.draws; ++draw) {
      const int32_t terms = p.terms[(p.row[b] * (int64_t)p.draws + draw) * (HEADER + TERMS)];
      if (terms > TERMS)
        refuse("brownian: " + at("terms", p.row[b], draw), terms, "at most " + std::to_string(TERMS));
    }
}

}  // namespace de
