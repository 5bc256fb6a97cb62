// The operations of recorded networks on many shapes. What a pool makes has to equal, bit by bit, what one thread
// made of the items in the opposite order. Tensors, weights and that thread's scratch are exactly as long as they
// say.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "cases.h"
#include "native/attend.h"
#include "native/bf16/conv_bf16.h"
#include "native/conv.h"
#include "native/copy.h"
#include "native/embedding.h"
#include "native/map.h"
#include "native/matmul.h"
#include "native/norm_groups.h"
#include "native/norm_rows.h"
#include "native/program.h"
#include "native/resample.h"
#include "native/winograd_conv.h"
#include "run.h"

namespace {

constexpr int64_t THREADS = 3;

// A drawn operation, cut for so many threads.
struct Case {
  Random random;
  int64_t threads;
  Buffers buffers;

  float* floats(int64_t count, bool output = false) {
    return buffers.numbers<float>((size_t)count, [this] { return random.normal(); }, output);
  }
  const float* maybe(int64_t count) { return random.chance(50) ? floats(count) : nullptr; }

  // Rows that end with their last element.
  de::Rows rows(int64_t batch, int64_t count, int64_t channels, bool output = false) {
    const int64_t row = channels + random.from({0, 0, 3}), gap = random.from({0, 0, 5});
    const int64_t step = count * row + gap;
    return {floats((batch - 1) * step + (count - 1) * row + channels, output), step, row};
  }

  de::Epilogue epilogue(int64_t batch, int64_t pixels, int64_t columns) {
    de::Epilogue e;
    e.bias = maybe(columns);
    e.shift = maybe(batch * columns), e.shift_batch = columns;
    e.gate = maybe(batch * columns), e.gate_batch = columns;
    e.activation = (int32_t)random.below(5);
    if (random.chance(50)) e.residual = rows(batch, pixels, columns);
    return e;
  }
};

using Tasks = std::vector<de::Task>;

// But for its weight.
de::ConvParams drawn_conv(Case& c, int64_t groups) {
  de::ConvParams p;
  p.batch = c.random.from({1, 2});
  p.groups = groups;
  p.channels = p.groups * c.random.from({1, 5, 16, 40});
  p.out_channels = c.random.chance(20) ? p.channels : p.groups * c.random.from({1, 3, 8, 33, 64});
  p.kernel_height = c.random.from({1, 1, 2, 3}), p.kernel_width = c.random.from({1, 1, 3});
  if (c.random.chance(30)) p.kernel_height = p.kernel_width = 1;
  p.stride_y = p.stride_x = c.random.from({1, 1, 2});
  p.dilation_y = p.dilation_x = c.random.from({1, 1, 2});
  p.upsample = c.random.from({1, 1, 2});
  p.height = c.random.from({1, 4, 9}), p.width = c.random.from({3, 8, 13});
  p.pad_top = c.random.below(p.kernel_height), p.pad_left = c.random.below(p.kernel_width);
  const auto out = [&](int64_t size, int64_t kernel, int64_t pad) {
    return std::max<int64_t>(1, (size * p.upsample + 2 * pad - p.dilation_y * (kernel - 1) - 1) / p.stride_y + 1);
  };
  p.out_height = out(p.height, p.kernel_height, p.pad_top);
  p.out_width = out(p.width, p.kernel_width, p.pad_left);
  p.x = c.rows(p.batch, p.height * p.width, p.channels);
  p.out = c.rows(p.batch, p.pixels(), p.out_channels, true);
  p.epilogue = c.epilogue(p.batch, p.pixels(), p.out_channels);
  return p;
}

Tasks conv(Case& c) {
  de::ConvParams p = drawn_conv(c, c.random.from({1, 1, 2, 3}));
  p.weight = c.floats(de::conv_packed_size(p.out_channels, p.channels, p.taps(), p.groups));
  return {de::conv_task(p, c.threads)};
}

// Any kind of products in bf16.
void choose_half(Case& c) {
  const auto kinds = de::half_supported();
  const int64_t kind = c.random.below((int64_t)kinds.size() + 1);
  de::choose_half(kind < (int64_t)kinds.size() ? kinds[kind]->name : "emulated");
}

Tasks conv_bf16(Case& c) {
  choose_half(c);
  de::ConvParams p = drawn_conv(c, 1);
  const int64_t size = de::conv_bf16_packed_size(p.out_channels, p.channels, p.taps());
  auto* packed = (uint16_t*)c.buffers.made(size * sizeof(uint16_t), false);
  de::conv_bf16_pack(c.floats(p.out_channels * p.channels * p.taps()), p.out_channels, p.channels, p.taps(), packed);
  p.half = packed;
  return {de::conv_task(p, c.threads)};
}

Tasks linear(Case& c) {
  de::ConvParams p;
  p.batch = c.random.from({1, 2});
  p.width = p.out_width = c.random.from({1, 2, 7, 150});
  p.channels = c.random.from({1, 17, 128, 390, 1024});
  p.out_channels = c.random.from({1, 4, 16, 70, 300});
  p.x = c.rows(p.batch, p.width, p.channels);
  p.out = c.rows(p.batch, p.width, p.out_channels, true);
  p.weight = c.floats(de::conv_packed_size(p.out_channels, p.channels, 1, 1));
  p.epilogue = c.epilogue(p.batch, p.width, p.out_channels);
  return {de::conv_task(p, c.threads)};
}

Tasks winograd(Case& c) {
  de::WinogradConvParams p;
  p.batch = c.random.from({1, 2, 3});
  p.channels = c.random.from({1, 16, 33}), p.out_channels = c.random.from({1, 5, 16, 40});
  p.height = c.random.from({1, 2, 5, 8}), p.width = c.random.from({1, 3, 9, 16});
  p.upsample = c.random.from({1, 1, 2}), p.tile = (int32_t)c.random.from({2, 4});
  const int64_t pixels = p.height * p.width, all = pixels * p.upsample * p.upsample;
  p.x = c.rows(p.batch, pixels, p.channels);
  p.out = c.rows(p.batch, all, p.out_channels, true);
  p.weight = c.floats((p.tile + 2) * (p.tile + 2) * ((p.out_channels + 15) / 16) * p.channels * 16);
  p.epilogue = c.epilogue(p.batch, all, p.out_channels);
  return {de::winograd_conv_task(p, c.threads)};
}

Tasks matmul(Case& c) {
  de::MatmulParams p;
  p.batch = c.random.from({1, 2}), p.heads = c.random.from({1, 3});
  p.rows = c.random.from({1, 5, 60, 130}), p.columns = c.random.from({1, 16, 33, 270});
  p.depth = c.random.from({1, 20, 390});
  p.transposed = c.random.chance(50), p.alpha = 0.5f;
  const auto matrices = [&](int64_t rows, int64_t columns, bool output) {
    const de::Rows heads = c.rows(p.batch * p.heads, rows, columns, output);
    return de::Matrices{heads.data, p.heads * heads.batch, heads.batch, heads.row};
  };
  p.a = matrices(p.rows, p.depth, false);
  p.b = p.transposed ? matrices(p.columns, p.depth, false) : matrices(p.depth, p.columns, false);
  p.out = matrices(p.rows, p.columns, true);
  return {de::matmul_task(p, c.threads)};
}

de::AttendParams drawn_attend(Case& c) {
  de::AttendParams p;
  p.batch = c.random.from({1, 2}), p.heads = c.random.from({1, 3}), p.dim = c.random.from({1, 8, 40, 72, 256});
  p.queries = c.random.from({1, 31, 33, 70}), p.keys = c.random.from({1, 5, 64, 130}), p.scale = 0.3f;
  const auto tokens = [&](int64_t count, bool output) {
    const de::Rows all = c.rows(p.batch, count, p.heads * p.dim, output);
    return de::Heads{all.data, all.batch, p.dim, all.row};
  };
  p.q = tokens(p.queries, false), p.k = tokens(p.keys, false), p.v = tokens(p.keys, false);
  p.out = tokens(p.queries, true);
  if (c.random.chance(50)) p.mask = {c.floats(p.heads * p.queries * p.keys), 0, p.queries * p.keys, p.keys};
  return p;
}

Tasks attend(Case& c) { return {de::attend_task(drawn_attend(c), c.threads)}; }

Tasks attend_bf16(Case& c) {
  choose_half(c);
  de::AttendParams p = drawn_attend(c);
  p.bf16 = true;
  return {de::attend_task(p, c.threads)};
}

template <class P>
void walked(Case& c, P& p) {
  p.batch = c.random.from({1, 2}), p.rows = c.random.from({1, 7, 150});
  p.x = c.rows(p.batch, p.rows, p.channels);
}

template <class P>
void normed(Case& c, P& p) {
  walked(c, p);
  p.out = c.rows(p.batch, p.rows, p.channels, true);
  p.weight = c.maybe(p.channels), p.bias = c.maybe(p.channels);
  p.scale = c.maybe(p.batch * p.channels), p.shift = c.maybe(p.batch * p.channels);
  p.scale_batch = p.shift_batch = p.channels;
  p.activation = (int32_t)c.random.below(5);
}

Tasks norm_groups(Case& c) {
  de::NormGroupsParams p;
  p.groups = c.random.from({1, 2, 8});
  p.channels = p.groups * c.random.from({1, 3, 4, 20});
  normed(c, p);
  return de::norm_groups_tasks(p, c.threads);
}

Tasks norm_rows(Case& c) {
  de::NormRowsParams p;
  p.channels = c.random.from({1, 5, 64, 100, 1500});
  p.rms = c.random.chance(50);
  normed(c, p);
  return {de::norm_rows_task(p, c.threads)};
}

Tasks softmax(Case& c) {
  de::SoftmaxRowsParams p;
  p.channels = c.random.from({1, 5, 64, 100, 1500});
  walked(c, p);
  p.out = c.rows(p.batch, p.rows, p.channels, true);
  return {de::softmax_rows_task(p, c.threads)};
}

Tasks reduce(Case& c) {
  de::ReduceRowsParams p;
  p.channels = c.random.from({1, 5, 64, 100, 1500});
  p.over_rows = c.random.chance(50);
  walked(c, p);
  p.out = p.over_rows ? c.rows(p.batch, 1, p.channels, true) : c.rows(p.batch, p.rows, 1, true);
  return {de::reduce_rows_task(p, c.threads)};
}

// function(x, y) of a whole tensor and one with a value for each row or column.
Tasks map(Case& c) {
  de::MapParams p;
  const int64_t rows = c.random.from({1, 3, 50}), columns = c.random.from({1, 7, 64, 1000}), shared = c.random.below(3);
  p.size = {1, 1, 1, rows, columns};
  p.inputs.push_back({(char*)c.floats(rows * columns), de::MAP_FLOAT32, {0, 0, 0, columns, 1}});
  p.inputs.push_back({(char*)c.floats(shared == 0 ? rows * columns : shared == 1 ? rows : columns), de::MAP_FLOAT32,
                      {0, 0, 0, shared == 0 ? columns : shared == 1, shared != 1}});
  p.outputs.push_back({(char*)c.floats(rows * columns, true), de::MAP_FLOAT32, {0, 0, 0, columns, 1}});
  const int32_t function = (int32_t)c.random.below(de::MAP_FUNCTIONS);
  p.code = {{de::MAP_load, 0, {0, 0, 0}},
            {de::MAP_load, 1, {1, 0, 0}},
            {function, 2, {0, 1, 0}, 2.0f},
            {de::MAP_store, 0, {2, 0, 0}}};
  return {de::map_task(p, c.threads)};
}

// A transposed part with a border.
Tasks copy(Case& c) {
  de::CopyParams p;
  const int64_t batch = c.random.from({1, 2}), rows = c.random.from({1, 5, 40}), columns = c.random.from({1, 9, 70});
  const int64_t before = c.random.from({0, 0, 2}), after = c.random.from({0, 0, 3});
  p.sizes = {1, 1, 1, batch, rows + before + after, columns};
  p.inside = {1, 1, 1, batch, rows, columns};
  p.before = {0, 0, 0, 0, before, 0};
  const bool turned = c.random.chance(50);
  p.x_strides = {0, 0, 0, rows * columns, turned ? 1 : columns, turned ? rows : 1};
  p.out_strides = {0, 0, 0, p.sizes[4] * columns, columns, 1};
  p.x = c.floats(batch * rows * columns);
  p.out = c.floats(batch * p.sizes[4] * columns, true);
  return {de::copy_task(p, c.threads)};
}

template <class P>
void picture(Case& c, P& p) {
  p.batch = c.random.from({1, 2}), p.channels = c.random.from({1, 5, 40});
  p.height = c.random.from({2, 5, 8}), p.width = c.random.from({2, 3, 9});
  p.x = c.rows(p.batch, p.height * p.width, p.channels);
}

Tasks upsample(Case& c) {
  de::UpsampleParams p;
  picture(c, p);
  const int64_t factor = c.random.from({1, 2, 3});
  p.out_height = factor * p.height, p.out_width = factor * p.width;
  p.y_step = p.x_step = 1.0f / (float)factor;
  p.out = c.rows(p.batch, p.out_height * p.out_width, p.channels, true);
  return {de::upsample_task(p, c.threads)};
}

Tasks pool(Case& c) {
  de::PoolParams p;
  picture(c, p);
  p.kernel_y = c.random.from({1, 2}), p.kernel_x = c.random.from({1, 2});
  p.stride_y = c.random.from({1, 2, 3}), p.stride_x = c.random.from({1, 2, 3});
  p.out_height = (p.height - p.kernel_y) / p.stride_y + 1, p.out_width = (p.width - p.kernel_x) / p.stride_x + 1;
  p.greatest = c.random.chance(50);
  p.out = c.rows(p.batch, p.out_height * p.out_width, p.channels, true);
  return {de::pool_task(p, c.threads)};
}

Tasks embedding(Case& c) {
  de::EmbeddingParams p;
  p.rows = c.random.from({1, 7}), p.features = c.random.from({1, 33, 300}), p.count = c.random.from({1, 5, 200});
  p.table_row = p.out_row = p.features;
  p.table = c.floats(p.rows * p.features);
  p.labels = c.buffers.numbers<int64_t>((size_t)p.count, [&] { return c.random.below(p.rows); });
  p.out = c.floats(p.count * p.features, true);
  return {de::embedding_task(p, c.threads)};
}

using Maker = Tasks (*)(Case&);

std::vector<char> made_alone(Maker make, uint64_t seed) {
  Case c{Random(seed), 1, {}};
  for (const de::Task& task : make(c)) {
    const size_t bytes = (size_t)task.scratch * sizeof(float);
    void* scratch = nullptr;
    if (posix_memalign(&scratch, 64, bytes)) std::abort();
    std::fill_n((float*)scratch, task.scratch, std::numeric_limits<float>::quiet_NaN());
    for (int64_t i = task.items; i-- > 0;) task.run(i, (float*)scratch);
    std::free(scratch);
  }
  return c.buffers.result();
}

std::vector<char> made_by(const std::shared_ptr<de::Pool>& pool, Maker make, uint64_t seed) {
  Case c{Random(seed), pool->threads(), {}};
  de::Program program(pool);
  for (de::Task& task : make(c)) {
    task.work = std::max<int64_t>(task.work, 1 << 20);  // that it is shared out however small it is
    program.add(std::move(task), "task");
  }
  program.run({}, {});
  return c.buffers.result();
}

}  // namespace

int check_tasks(int cases) {
  const std::pair<const char*, Maker> ops[] = {
      {"conv", conv},           {"linear", linear},       {"winograd_conv", winograd}, {"matmul", matmul},
      {"attend", attend},       {"norm_groups", norm_groups}, {"norm_rows", norm_rows},    {"softmax", softmax},
      {"reduce", reduce},       {"map", map},             {"copy", copy},              {"upsample", upsample},
      {"pool", pool},           {"embedding", embedding},     {"conv_bf16", conv_bf16},
      {"attend_bf16", attend_bf16},
  };
  const auto threads = std::make_shared<de::Pool>(THREADS);
  int wrong = 0;
  for (const auto& [name, make] : ops) {
    for (int seed = 0; seed < cases; ++seed)
      if (made_alone(make, seed) != made_by(threads, make, seed)) {
        std::printf("%s (%s), case %d: a pool made something else\n", name, de::kernels().isa, seed);
        ++wrong;
      }
    std::printf("%s of recorded networks (%s): %d cases\n", name, de::kernels().isa, cases);
  }
  return wrong;
}
