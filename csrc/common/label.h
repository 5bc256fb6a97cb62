// The network's label as an int64, for host and device.
#pragma once
#include "philox.h"

namespace de {

// Towards zero, and -2^63 where there is no such number (NaN, 1e300): C++ leaves that open, and processors
// answer in three ways.
DE_HD int64_t whole_label(double label) {
  constexpr double end = 9223372036854775808.0;
  return label >= -end && label < end ? (int64_t)label : INT64_MIN;
}

}  // namespace de
