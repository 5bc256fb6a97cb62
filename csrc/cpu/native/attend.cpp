#include "attend.h"

#include <stdexcept>

#include "../run.h"
#include "bf16/attend_bf16.h"

namespace de {

static AttentionParams attention_of(const AttendParams& p) {
  AttentionParams a{};
  a.batch = p.batch, a.heads = p.heads, a.queries = p.queries, a.keys = p.keys, a.dim = p.dim;
  a.dtype = F32;
  a.scale = p.scale;
  a.q = p.q, a.k = p.k, a.v = p.v, a.out = p.out;
  return a;
}

Task attend_task(const AttendParams& p, int64_t threads) {
  if (p.batch < 1 || p.heads < 1 || p.queries < 1 || p.keys < 1 || p.dim < 1)
    throw std::invalid_argument("attend needs samples, heads, queries, keys and a head dim");
  if (p.bf16) return attend_bf16_task(p, threads);
  const AttentionParams a = attention_of(p);
  const AttentionBlocks blocks = attention_blocks(a, threads);
  const auto attend = kernels().attend;
  const Mask mask = p.mask;
  Task task;
  task.items = blocks.items(a);
  task.scratch = blocks.scratch(a, mask.data != nullptr);
  task.work = 2 * a.batch * a.heads * a.queries * a.keys * a.dim;
  task.run = [=](int64_t item, float* scratch) { attend(a, mask, blocks, item, scratch); };
  return task;
}

}  // namespace de
