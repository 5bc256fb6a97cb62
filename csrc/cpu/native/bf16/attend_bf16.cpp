#include "attend_bf16.h"

#include <algorithm>
#include <numeric>

#include "kernels.h"

namespace de {

// Numbers of an item's queries, and keys of a block: with the packed keys and values they fit into a second cache of
// 1 MiB. More queries share the packing; of 64 to 512 keys these were the fastest, by 2 to 5 % over 128.
constexpr int64_t QUERY_NUMBERS = 65536, KEYS = 256;

// The blocks of queries decide no sum: where there are few heads they are small, for the threads. Threads that have
// equally many items end together.
static HalfAttendBlocks blocks_of(const AttendParams& p, int64_t threads) {
  HalfAttendBlocks blocks;
  blocks.dim = HalfAttendBlocks::round_up(p.dim);
  blocks.keys = std::min(HalfAttendBlocks::round_up(p.keys), KEYS);
  const int64_t heads = p.batch * p.heads;
  int64_t wanted = (threads + heads - 1) / heads;
  if (heads * wanted < 4 * threads) wanted *= threads / std::gcd(heads * wanted, threads);
  const int64_t fit = std::max<int64_t>(1, QUERY_NUMBERS / blocks.dim);
  const int64_t parts = std::max(wanted, (p.queries + fit - 1) / fit);
  blocks.queries = HalfAttendBlocks::round_up((p.queries + parts - 1) / parts);
  return blocks;
}

Task attend_bf16_task(const AttendParams& p, int64_t threads) {
  const HalfAttendBlocks blocks = blocks_of(p, threads);
  const auto attend = half_kernels().attend;
  Task task;
  task.items = blocks.items(p);
  task.scratch = blocks.scratch(p.mask.data != nullptr);
  task.work = 2 * p.batch * p.heads * p.queries * p.keys * p.dim;
  task.run = [=](int64_t item, float* scratch) { attend(p, blocks, item, scratch); };
  return task;
}

}  // namespace de
