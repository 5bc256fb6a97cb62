#include "matmul.h"

#include "../run.h"

namespace de {

// The right matrix is packed by every item: rows enough to be worth it, columns whose panels stay in the
// second cache.
constexpr int64_t ROWS_OF_ITEM = 96, PANELS_OF_ITEM = 8;

Task matmul_task(const MatmulParams& p, int64_t threads) {
  const int64_t panels = ConvBlocks::parts_of(p.columns, CONV_PANEL), heads = p.batch * p.heads;
  int64_t blocks = ConvBlocks::parts_of(p.rows, ROWS_OF_ITEM);
  const int64_t parts = ConvBlocks::parts_of(panels, PANELS_OF_ITEM);
  if (heads * blocks * parts % threads != 0) blocks = ConvBlocks::parts_of(blocks, threads) * threads;
  MatmulBlocks found;
  found.rows = ConvBlocks::parts_of(p.rows, std::min(blocks, p.rows));
  found.panels = ConvBlocks::parts_of(panels, parts);
  found.depth = std::min(p.depth, CONV_DEPTH);
  Task task;
  task.items = found.items(p);
  task.scratch = found.scratch();
  task.work = heads * p.rows * p.columns * p.depth;
  task.run = [p, found](int64_t item, float* scratch) { kernels().matmul(p, found, item, scratch); };
  return task;
}

}  // namespace de
