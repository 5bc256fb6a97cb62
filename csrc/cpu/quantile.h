// The op `quantile` between its kernel and the loop over samples.
#pragma once
#include "reductions.h"

namespace de {

constexpr int64_t ROOM = 16;  // what a vector writes beyond

struct Between {
  int64_t below, count;
  int32_t top;  // the largest of all
};

}  // namespace de
