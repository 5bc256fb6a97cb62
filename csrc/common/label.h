// What the network is told for the time, for host and device.
#pragma once
#include "philox.h"
#include "step.h"

namespace de {

// Towards zero, and -2^63 where there is no such number (NaN, 1e300): C++ leaves that open, and processors
// answer in three ways.
DE_HD int64_t whole_label(double label) {
  constexpr double end = 9223372036854775808.0;
  return label >= -end && label < end ? (int64_t)label : INT64_MIN;
}

DE_HD void set_label(void* to, int32_t dtype, int32_t entry, double label) {
  if (dtype == F32)
    static_cast<float*>(to)[entry] = (float)label;
  else if (dtype == F64)
    static_cast<double*>(to)[entry] = label;
  else
    static_cast<int64_t*>(to)[entry] = whole_label(label);
}

// Both labels of row r, into one entry.
DE_HD void set_labels(const StepParams& p, int32_t entry, int64_t r) {
  set_label(p.label, p.label_dtype, entry, p.labels[r * LABELS]);
  if (p.end_label) set_label(p.end_label, p.label_dtype, entry, p.labels[r * LABELS + 1]);
}

}  // namespace de
