// Runs the CPU kernels on many shapes, alone and from several threads at once, for every instruction set
// of the machine. Built with a sanitizer (test_sanitizers.py); buffers end where their tensors do. What
// threads make has to equal, bit by bit, what one made.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "attention.h"
#include "cases.h"
#include "group_norm.h"
#include "run.h"
#include "winograd.h"

int check_programs(int programs);
int check_tasks(int cases);

namespace {

using de::View;

constexpr int THREADS = 3;

void put(char* at, int32_t dtype, float value) {
  if (dtype == de::F32) {
    std::memcpy(at, &value, 4);
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  // float16 of a number from 2^-14 to 2, near enough
  const uint16_t half = dtype == de::BF16
                            ? bits >> 16
                            : (bits >> 16 & 0x8000) | (uint16_t)(((bits >> 13 & 0x3FFFF) - 0x1C000) & 0x7FFF);
  std::memcpy(at, &half, 2);
}

// A tensor [batch, channels, pixels] in either layout, with gaps between samples or rows; `rows` of its
// memory are used, so that it ends with its last element.
View tensor(Random& random, Buffers& buffers, int64_t batch, int64_t channels, int64_t pixels, bool last,
            int32_t dtype, bool output, int64_t gap = 0) {
  View v{};
  v.dtype = dtype;
  const int64_t row = (last ? channels : pixels) + (last ? gap : 0), rows = last ? pixels : channels;
  v.channel = last ? 1 : row;
  v.pixel = last ? row : 1;
  v.batch = row * rows + (last ? 0 : gap * pixels);
  const int64_t size = dtype == de::F32 ? 4 : 2;
  const int64_t count =
      (batch - 1) * v.batch + (channels - 1) * v.channel + (pixels - 1) * v.pixel + 1;
  char* data = buffers.made((size_t)(count * size), output);
  for (int64_t i = 0; i < count; ++i) {
    float value = random.normal();
    if (dtype == de::F16) value = std::copysign(0.5f + 0.4f * (float)random.below(4), value);
    put(data + i * size, dtype, value);
  }
  v.data = data;
  return v;
}

// [batch, channels], one value for all pixels, in steps of `step`.
View plain(Random& random, Buffers& buffers, int64_t batch, int64_t channels, int64_t step = 1) {
  View v = tensor(random, buffers, 1, 1, ((batch - 1) * channels + channels - 1) * step + 1, false, de::F32, false);
  v.batch = channels * step;
  v.channel = step;
  v.pixel = 0;
  return v;
}

// A call on buffers of its own.
struct Call {
  Buffers buffers;
  std::function<void()> run;
};

Call group_norm(Random random) {
  Call call;
  Buffers& b = call.buffers;
  de::GroupNormParams p{};
  p.batch = random.from({1, 2, 3});
  p.groups = (int32_t)random.from({1, 2, 3, 4});
  p.channels = p.groups * random.from({1, 2, 3, 5, 8, 12, 24});
  p.pixels = random.from({1, 1, 2, 5, 16, 63, 256, 1023});
  if (random.chance(3)) p.pixels = 20000;  // in parts
  p.silu = random.chance(50);
  p.eps = 1e-5f;
  const bool last = random.chance(50);
  const int32_t kind = (int32_t)random.from({de::F32, de::F32, de::BF16, de::F16});
  const auto image = [&](bool output) {
    return tensor(random, b, p.batch, p.channels, p.pixels, last, random.chance(70) ? kind : de::F32,
                  output, random.from({0, 0, 3}));
  };
  p.x = image(false);
  p.out = image(true);
  if (random.chance(30))
    p.residual = image(false);
  else if (random.chance(50))
    p.residual = plain(random, b, p.batch, p.channels, random.from({1, 1, 2}));
  if (p.residual.data && random.chance(50)) p.summed = image(true);
  if (random.chance(60)) p.weight = plain(random, b, 1, p.channels, random.from({1, 2}));
  if (random.chance(60)) p.bias = plain(random, b, 1, p.channels);
  if (random.chance(40)) p.scale = plain(random, b, p.batch, p.channels, random.from({1, 2}));
  if (random.chance(40)) p.shift = plain(random, b, p.batch, p.channels);
  call.run = [p] { de::run_group_norm(p); };
  return call;
}

Call attention(Random random) {
  Call call;
  de::AttentionParams p{};
  p.batch = random.from({1, 2});
  p.heads = random.from({1, 2, 3});
  p.queries = random.from({1, 3, 31, 32, 33, 70});
  p.keys = random.from({1, 5, 63, 64, 65, 130});
  p.dim = random.from({8, 9, 16, 24, 40, 64, 100, 256});
  p.dtype = (int32_t)random.from({de::F32, de::BF16, de::F16});
  p.scale = 0.3f;
  const bool first = random.chance(50);  // tokens before heads
  const auto tokens = [&](int64_t n, bool output) {
    const View v = first ? tensor(random, call.buffers, p.batch, n, p.heads * p.dim, false, p.dtype, output)
                         : tensor(random, call.buffers, p.batch, p.heads, n * p.dim, false, p.dtype, output);
    return first ? de::Heads{v.data, v.batch, p.dim, p.heads * p.dim}
                 : de::Heads{v.data, v.batch, n * p.dim, p.dim};
  };
  p.q = tokens(p.queries, false);
  p.k = tokens(p.keys, false);
  p.v = tokens(p.keys, false);
  p.out = tokens(p.queries, true);
  call.run = [p] { de::run_attention(p); };
  return call;
}

Call conv3x3(Random random) {
  Call call;
  de::Conv3x3Params p{};
  p.batch = random.from({1, 2, 3});
  p.channels = random.from({1, 3, 16, 33});
  p.out_channels = random.from({1, 5, 16, 40});
  p.height = random.from({1, 2, 5, 8, 13});
  p.width = random.from({1, 3, 4, 9, 16});
  p.tile = (int32_t)random.from({2, 4});
  p.x_last = random.chance(50);
  p.out_last = random.chance(50);
  const int64_t pixels = p.height * p.width, panels = (p.out_channels + 15) / 16;
  p.x = tensor(random, call.buffers, p.batch, p.channels, pixels, p.x_last, de::F32, false);
  p.out = tensor(random, call.buffers, p.batch, p.out_channels, pixels, p.out_last, de::F32, true);
  if (random.chance(50))
    p.residual = tensor(random, call.buffers, p.batch, p.out_channels, pixels, p.out_last, de::F32, false);
  const auto normal = [&] { return random.normal(); };
  const int64_t points = (p.tile + 2) * (p.tile + 2);
  p.weight = call.buffers.numbers<float>((size_t)(points * panels * p.channels * 16), normal);
  if (random.chance(50)) p.bias = call.buffers.numbers<float>((size_t)p.out_channels, normal);
  call.run = [p] { de::run_conv3x3(p); };
  return call;
}

Call step(Random random) {
  Call call;
  Buffers& b = call.buffers;
  de::StepParams p{};
  const int64_t rows = 3, entries = 4;
  const auto normal = [&] { return random.normal(); };
  p.batch = random.from({1, 2, 5});
  p.channels = p.block = random.from({1, 3, 4, 8});
  p.pixels = random.from({1, 7, 64, 130, 1000});
  const bool last = random.chance(30), merged = !last && random.chance(50);
  p.slots = (int32_t)random.from({1, 2, 3, 5});
  p.normals = (int32_t)random.below(3);
  p.inputs = (int32_t)random.below(3);
  p.learned = random.chance(30);
  const auto state = [&](bool output, int64_t batch, int64_t width, int32_t dtype) {
    return tensor(random, b, batch, width * p.block, p.pixels, last, dtype, output);
  };
  for (int k = 0; k < p.slots; ++k) p.slot[k] = state(true, p.batch, 1, de::F32);
  p.tensors = (int32_t)random.below(3);
  int64_t blocks = 0;
  for (int t = 0; t < p.tensors; ++t) {
    p.blocks[t] = (int32_t)random.from({1, 2});
    blocks += p.blocks[t];
    p.out[t] = state(false, entries, p.blocks[t], (int32_t)random.from({de::F32, de::BF16, de::F16}));
  }
  p.outputs = p.tensors ? (int32_t)random.from({1, 2, 4}) : 0;
  p.entries = 1;
  p.dst = b.numbers<int32_t>((size_t)p.batch, [&, n = 0]() mutable { return n < entries ? n++ : -1; });
  if (p.outputs)
    p.src = b.numbers<int32_t>((size_t)(p.batch * p.outputs), [&] { return (int32_t)random.below(entries + 1) - 1; });
  if (p.inputs) p.net_in = state(true, entries, p.inputs, (int32_t)random.from({de::F32, de::BF16, de::F16}));
  if (random.chance(30)) {
    p.noise = state(false, 3 * p.batch, 1, de::F32);
    p.noise_draw = p.batch * p.noise.batch;
    if (random.chance(50))
      p.given = b.numbers<int32_t>((size_t)p.batch, [&] { return (int32_t)random.below(2); });
  }
  if (random.chance(30)) {
    p.mask = state(false, p.batch, 1, de::F32);
    p.known = state(false, p.batch, 1, de::F32);
  }
  if (random.chance(30)) p.denoised = state(true, p.batch, 1, de::F32);
  p.label_dtype = (int32_t)random.from({de::F32, de::F64, de::I64});
  p.label = b.made(entries * (p.label_dtype == de::F32 ? 4 : 8), true);
  if (random.chance(50)) p.end_label = b.made(entries * (p.label_dtype == de::F32 ? 4 : 8), true);
  p.row = b.numbers<int32_t>((size_t)p.batch, [&] { return (int32_t)random.below(rows + 1) - 1; }, true);
  p.seed = b.numbers<int64_t>((size_t)p.batch, [&] { return (int64_t)random.engine(); });
  p.status = b.numbers<int32_t>((size_t)p.batch, [] { return 0; }, true);
  float* coef = b.numbers<float>(rows * de::COEF, [&] { return random.chance(50) ? 0.0f : random.normal(); });
  int32_t* index = b.numbers<int32_t>(rows * de::INDEX, [] { return 0; });
  for (int64_t r = 0; r < rows; ++r) {
    float* c = coef + r * de::COEF;
    int32_t* i = index + r * de::INDEX;
    c[de::LO] = -1.0f;
    c[de::HI] = 1.0f;
    for (int k = p.slots; k < de::SLOTS; ++k) {  // slots that are not there
      c[de::P + k] = 0.0f;
      for (int l = 0; l < de::SLOTS; ++l) c[de::A + k * de::SLOTS + l] = c[de::A + l * de::SLOTS + k] = 0.0f;
    }
    for (int j = 0; j < de::OUTPUTS; ++j) {
      if (j >= p.outputs) c[de::Q + j] = c[de::RAW + j] = 0.0f;
      i[de::H + j] = blocks ? (int32_t)random.below(blocks) : 0;
    }
    for (int k = 0; k < de::SLOTS; ++k)
      for (int m = p.normals; m < de::NORMALS; ++m) c[de::C + k * de::NORMALS + m] = 0.0f;
    i[de::NEXT] = (int32_t)random.below(rows + 1) - 1;
    i[de::KEY] = (int32_t)random.below(1000);
    i[de::READS] = i[de::WRITES] = (1 << p.slots) - 1;
    i[de::FLAGS] = de::DENOISED | de::RAW_USED | (p.mask.data ? de::MASKED : 0) |
                   (p.learned && p.outputs ? de::LEARNED : 0);
    for (int m = 0; m < p.normals; ++m) i[de::FLAGS] |= de::NORMAL << m;
    for (int n = 0; n < de::INPUTS; ++n) i[de::READ + n] = (int32_t)random.below(p.slots);
    i[de::JV] = p.outputs ? (int32_t)random.below(p.outputs) : 0;
  }
  p.coef = coef;
  p.index = index;
  p.labels = b.numbers<double>(rows * de::LABELS, [&] { return (double)random.below(1000); });
  if (merged) {
    p.pixels *= p.channels;
    p.channels = 1;
  }
  (void)normal;
  call.run = [p] { de::run_step(p); };
  return call;
}

Call noise(Random random) {
  Call call;
  de::NoiseParams p{};
  p.batch = random.from({1, 2, 5});
  p.channels = random.from({1, 3, 4});
  p.pixels = random.from({1, 2, 7, 64, 1001, 40000});
  p.out = tensor(random, call.buffers, p.batch, p.channels, p.pixels, random.chance(40), de::F32, true);
  p.seed = call.buffers.numbers<int64_t>((size_t)p.batch, [&] { return (int64_t)random.engine(); });
  if (random.chance(50)) {
    p.row = call.buffers.numbers<int32_t>((size_t)p.batch, [&] { return (int32_t)random.below(3) - 1; });
    p.index = call.buffers.numbers<int32_t>(2 * de::INDEX, [&] { return (int32_t)random.below(9); });
  }
  p.key = (uint32_t)random.engine();
  p.m = (uint32_t)random.below(3);
  call.run = [p] { de::run_noise(p); };
  return call;
}

Call brownian(Random random) {
  Call call;
  de::BrownianParams p{};
  p.batch = random.from({1, 2, 5});
  p.channels = random.from({1, 3, 4});
  p.pixels = random.from({1, 2, 7, 64, 501});
  p.draws = (int32_t)random.from({1, 2, 3});
  p.out = tensor(random, call.buffers, p.draws * p.batch, p.channels, p.pixels, random.chance(40), de::F32, true);
  p.out_draw = p.batch * p.out.batch;
  p.seed = call.buffers.numbers<int64_t>((size_t)p.batch, [&] { return (int64_t)random.engine(); });
  p.row = call.buffers.numbers<int32_t>((size_t)p.batch, [&] { return (int32_t)random.below(3) - 1; });
  constexpr int64_t ROW = de::HEADER + de::TERMS;
  int32_t* terms = call.buffers.numbers<int32_t>((size_t)(2 * p.draws * ROW), [&] { return (int32_t)random.below(1 << 17); });
  for (int64_t i = 0; i < 2 * p.draws; ++i) {
    terms[i * ROW] = (int32_t)random.from({0, 1, 5, de::TERMS});
    terms[i * ROW + 1] = (int32_t)random.below(6);
  }
  p.terms = terms;
  p.weight = call.buffers.numbers<float>((size_t)(2 * p.draws * de::TERMS), [&] { return random.normal(); });
  call.run = [p] { de::run_brownian(p); };
  return call;
}

Call norms(Random random) {
  Call call;
  de::NormsParams p{};
  p.batch = random.from({1, 2, 3});
  p.channels = random.from({1, 1, 3});
  p.pixels = random.from({1, 7, 512, 501, 8192, 20000});
  const auto image = [&] {
    return tensor(random, call.buffers, p.batch, p.channels, p.pixels, random.chance(40), de::F32, false, random.from({0, 0, 3}));
  };
  p.x = image();
  if (random.chance(60)) p.y = image();
  p.out = (double*)call.buffers.made((size_t)p.batch * de::SUMS * sizeof(double), true);
  call.run = [p] { de::run_norms(p); };
  return call;
}

Call quantile(Random random) {
  Call call;
  de::QuantileParams p{};
  p.batch = random.from({1, 2, 5});
  p.channels = random.from({1, 1, 3});
  p.pixels = random.from({1, 7, 501, 8192, 20000});
  p.x = tensor(random, call.buffers, p.batch, p.channels, p.pixels, random.chance(40), de::F32, false, random.from({0, 0, 3}));
  p.q = call.buffers.numbers<double>((size_t)p.batch, [&] { return 0.25 * (double)random.below(6); });
  p.out = (float*)call.buffers.made((size_t)p.batch * sizeof(float), true);
  call.run = [p] { de::run_quantile(p); };
  return call;
}

using Maker = Call (*)(Random);

std::vector<char> made_by(Maker make, uint64_t seed) {
  const Call call = make(Random(seed));
  call.run();
  return call.buffers.result();
}

int fail(const char* op, const char* isa, uint64_t seed) {
  std::printf("%s (%s), case %llu: another thread made something else\n", op, isa, (unsigned long long)seed);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t cases = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100;
  const std::pair<const char*, Maker> ops[] = {
      {"group_norm", group_norm},
      {"attention", attention},
      {"conv3x3", conv3x3},
      {"step", step},
      {"noise", noise},
      {"brownian", brownian},
      {"norms", norms},
      {"quantile", quantile},
  };
  int wrong = check_programs(25 * (int)cases);
  for (const de::Kernels* kernels : de::supported()) {
    de::choose(kernels->isa);
    wrong += check_tasks((int)cases);
    for (const auto& [name, make] : ops) {
      std::vector<std::vector<char>> wants;
      for (uint64_t seed = 0; seed < cases; ++seed) wants.push_back(made_by(make, seed));
      std::vector<int> differ(THREADS, 0);
      std::vector<std::thread> threads;
      for (int t = 0; t < THREADS; ++t)
        threads.emplace_back([&, t, make = make, name = name] {
          for (uint64_t i = 0; i < cases; ++i) {
            const uint64_t seed = (i + (uint64_t)t * cases / THREADS) % cases;
            if (made_by(make, seed) != wants[seed]) differ[t] += fail(name, kernels->isa, seed);
          }
        });
      for (std::thread& thread : threads) thread.join();
      for (const int count : differ) wrong += count;
      std::printf("%s (%s): %llu cases\n", name, kernels->isa, (unsigned long long)cases);
    }
  }
  return wrong != 0;
}
