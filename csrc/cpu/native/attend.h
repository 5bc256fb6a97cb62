// Scaled dot product attention of a recorded network: out = softmax(scale q k' + mask) v.
#pragma once
#include "../attention.h"
#include "params.h"
#include "task.h"

namespace de {

struct AttendParams {
  int64_t batch = 0, heads = 1, queries = 0, keys = 0, dim = 0;
  float scale = 1.0f;
  Heads q{}, k{}, v{}, out{};
  Mask mask;
  bool bf16 = false;  // the products, of rounded numbers; the rest stays float32
};

Task attend_task(const AttendParams& p, int64_t threads);

}  // namespace de
