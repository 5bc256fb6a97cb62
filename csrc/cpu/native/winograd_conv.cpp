#include "winograd_conv.h"

#include "../run.h"
#include "../winograd.h"

namespace de {

static View view_of(const Rows& rows) { return {rows.data, rows.batch, 1, rows.row, F32}; }

static Conv3x3Params op_of(const WinogradConvParams& p) {
  Conv3x3Params op;
  op.batch = p.batch;
  op.channels = p.channels;
  op.out_channels = p.out_channels;
  op.height = p.height * p.upsample;
  op.width = p.width * p.upsample;
  op.upsample = p.upsample;
  op.tile = p.tile;
  op.x_last = op.out_last = true;
  op.x = view_of(p.x);
  op.out = view_of(p.out);
  op.residual = view_of(p.epilogue.residual);
  op.weight = p.weight;
  op.given = p.given;
  op.bias = p.epilogue.bias;
  op.followers = p.epilogue;
  op.followers.bias = nullptr;
  return op;
}

Task winograd_conv_task(const WinogradConvParams& params, int64_t threads) {
  const Conv3x3Params p = op_of(params);
  const WinogradBlocks blocks = WinogradBlocks::of(p, threads);
  Task task;
  task.items = blocks.items(p);
  task.scratch = blocks.scratch(p);
  task.work = WinogradBlocks::work(p);
  task.run = [p, blocks](int64_t item, float* scratch) { kernels().conv3x3(p, blocks, item, scratch); };
  return task;
}

}  // namespace de
