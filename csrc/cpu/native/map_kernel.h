// An item of a Map: its code is run over blocks of elements, each instruction in a loop over vectors. Included
// once for every instruction set.
#pragma once
#include <algorithm>

#include "functions.h"
#include "map.h"

namespace de {
namespace {

// What a function is given: registers and a constant.
struct Values {
  Float a, b, c, x;
};

DE_INLINE Float truth(Int mask) { return mask ? splat(1.0f) : splat(0.0f); }

// NaN stays, as at_least and at_most keep that of their first.
DE_INLINE Float keep_nan(Float b, Float result) { return b == b ? result : b; }

DE_INLINE Float soft_plus(Float a) {
  return a > splat(20.0f) ? a : at_least(a, splat(0.0f)) + log_one_more(exp_fused(-magnitude(a)));
}

DE_INLINE Float to_the_power(Float a, Float x) {
  for (int i = 0; i < W; ++i) a[i] = std::pow(a[i], x[0]);
  return a;
}

#define DE_FUNCTION(name, result) \
  struct Do_##name {              \
    static DE_INLINE Float of(const Values& v) { return result; } \
  };
DE_FUNCTION(add, v.a + v.b)
DE_FUNCTION(subtract, v.a - v.b)
DE_FUNCTION(multiply, v.a * v.b)
DE_FUNCTION(divide, v.a / v.b)
DE_FUNCTION(maximum, keep_nan(v.b, at_least(v.a, v.b)))
DE_FUNCTION(minimum, keep_nan(v.b, at_most(v.a, v.b)))
DE_FUNCTION(negate, -v.a)
DE_FUNCTION(abs, magnitude(v.a))
DE_FUNCTION(square, v.a * v.a)
DE_FUNCTION(sqrt, square_root(v.a))
DE_FUNCTION(rsqrt, 1.0f / square_root(v.a))
DE_FUNCTION(reciprocal, 1.0f / v.a)
DE_FUNCTION(exp, exp_fused(v.a))
DE_FUNCTION(log, logarithm(v.a))
DE_FUNCTION(sin, sine(v.a, 0))
DE_FUNCTION(cos, sine(v.a, 1))
DE_FUNCTION(tanh, tangent(v.a))
DE_FUNCTION(sigmoid, logistic(v.a))
DE_FUNCTION(silu, silu(v.a))
DE_FUNCTION(gelu, gelu(v.a))
DE_FUNCTION(gelu_tanh, gelu_tanh(v.a))
DE_FUNCTION(erf, error_function(v.a))
DE_FUNCTION(relu, at_least(v.a, splat(0.0f)))
DE_FUNCTION(softplus, soft_plus(v.a))
DE_FUNCTION(mish, mish(v.a))
DE_FUNCTION(hardswish, v.a * at_most(at_least(v.a + 3.0f, splat(0.0f)), splat(6.0f)) / 6.0f)
DE_FUNCTION(pow, to_the_power(v.a, v.x))
DE_FUNCTION(where, v.a != splat(0.0f) ? v.b : v.c)
DE_FUNCTION(gt, truth(v.a > v.b))
DE_FUNCTION(ge, truth(v.a >= v.b))
DE_FUNCTION(lt, truth(v.a < v.b))
DE_FUNCTION(le, truth(v.a <= v.b))
DE_FUNCTION(eq, truth(v.a == v.b))
DE_FUNCTION(ne, truth(v.a != v.b))
DE_FUNCTION(floor, round_down(v.a))
DE_FUNCTION(round, round_even(v.a))
#undef DE_FUNCTION

// The values of a register: vector k is at + k * step. One value for the whole block has step 0.
struct Register {
  const float* at = nullptr;
  int64_t step = 0;
  const MapInstruction* by = nullptr;  // what filled the register
  const char* copied = nullptr;  // where an input's values were read that are in its buffer, if all repeat
  bool kept = false;             // the values are those of the block before
};

// Functions of a cost up to CHEAP wait for loads and stores: four vectors at a time, at steps that are known.
constexpr int CHEAP = 3, TOGETHER = 4;

template <class Function, int OPERANDS, int STEP_A, int STEP_B, int STEP_C, int COUNT>
DE_INLINE void some_vectors(const float* a, const float* b, const float* c, Values& v, float* to) {
  Float y[COUNT];
  for (int k = 0; k < COUNT; ++k) {
    v.a = load<Float>(a + k * STEP_A);
    if (OPERANDS > 1) v.b = load<Float>(b + k * STEP_B);
    if (OPERANDS > 2) v.c = load<Float>(c + k * STEP_C);
    y[k] = Function::of(v);
  }
  for (int k = 0; k < COUNT; ++k) store(to + k * W, y[k]);
}

template <class Function, int OPERANDS, int COST, int STEP_A, int STEP_B, int STEP_C>
void each_vector(const float* a, const float* b, const float* c, Values v, float* to, int64_t n) {
  constexpr int COUNT = COST <= CHEAP ? TOGETHER : 1;
  int64_t i = 0;
  for (; i + COUNT * W <= n; i += COUNT * W) {
    some_vectors<Function, OPERANDS, STEP_A, STEP_B, STEP_C, COUNT>(a, b, c, v, to + i);
    a += COUNT * STEP_A, b += COUNT * STEP_B, c += COUNT * STEP_C;
  }
  for (; i < n; i += W) {
    some_vectors<Function, OPERANDS, STEP_A, STEP_B, STEP_C, 1>(a, b, c, v, to + i);
    a += STEP_A, b += STEP_B, c += STEP_C;
  }
}

template <class Function, int OPERANDS, int COST, int... STEPS>
DE_INLINE void with_steps(const Register* const* r, const Values& v, float* to, int64_t n) {
  if constexpr (sizeof...(STEPS) == MAP_OPERANDS)
    each_vector<Function, OPERANDS, COST, STEPS...>(r[0]->at, r[1]->at, r[2]->at, v, to, n);
  else if (sizeof...(STEPS) >= OPERANDS || r[sizeof...(STEPS)]->step == 0)
    with_steps<Function, OPERANDS, COST, STEPS..., 0>(r, v, to, n);
  else
    with_steps<Function, OPERANDS, COST, STEPS..., W>(r, v, to, n);
}

template <class Function, int OPERANDS, int COST>
void run_function(const Register* registers, const MapInstruction& code, float* to, int64_t n) {
  const Register* r[MAP_OPERANDS];
  for (int k = 0; k < MAP_OPERANDS; ++k) r[k] = &registers[code.operands[k]];
  Values v{};
  v.x = splat(code.x);
  with_steps<Function, OPERANDS, COST>(r, v, to, n);
}

using MapLoop = void (*)(const Register*, const MapInstruction&, float* to, int64_t n);
constexpr MapLoop MAP_LOOPS[] = {
#define F(name, operands, constants, cost) run_function<Do_##name, operands, cost>,
    DE_MAP_FUNCTIONS(F)
#undef F
};

template <class T>
void read_run(const void* from, int64_t stride, int64_t n, float* to) {
  const T* x = (const T*)from;
  if (stride == 1)
    for (int64_t i = 0; i < n; ++i) to[i] = (float)x[i];
  else
    for (int64_t i = 0; i < n; ++i) to[i] = (float)x[i * stride];
}

using ReadRun = void (*)(const void*, int64_t, int64_t, float*);
constexpr ReadRun READ_RUN[] = {read_run<float>, read_run<double>, read_run<int64_t>, read_run<int32_t>,
                                read_run<uint8_t>};
constexpr int64_t TYPE_BYTES[] = {4, 8, 8, 4, 1};

// Walks over the elements of a tensor from one of them on, in runs along its innermost axis.
class Runs {
 public:
  Runs(const MapWalk& w, int64_t first) : w(w) {
    for (int d = w.dims - 1; d > 0; --d) {
      index[d] = first % w.size[d], first /= w.size[d];
      offset += index[d] * w.stride[d];
    }
    index[0] = first, offset += first * w.stride[0];  // most have one axis, and no division
  }
  int64_t stride() const { return w.stride[w.dims - 1]; }
  int64_t left() const { return w.size[w.dims - 1] - index[w.dims - 1]; }
  char* at() const { return w.data + offset * TYPE_BYTES[w.type]; }
  // Whether the next n elements are those of the innermost axis again and again.
  bool repeats(int64_t n) const {
    const int d = w.dims - 2;
    return d >= 0 && w.stride[d] == 0 && index[d] * w.size[d + 1] + index[d + 1] + n <= w.size[d] * w.size[d + 1];
  }

  // n is at most left().
  void advance(int64_t n) {
    int d = w.dims - 1;
    index[d] += n, offset += n * w.stride[d];
    for (; d > 0 && index[d] == w.size[d]; --d) {
      offset += w.stride[d - 1] - w.size[d] * w.stride[d];
      index[d] = 0, ++index[d - 1];
    }
  }

 private:
  const MapWalk& w;
  int64_t offset = 0, index[MAP_DIMS] = {};
};

// n elements of an input: where they lie, if they fill whole vectors there, or in a buffer, the end of whose
// last vector is 0; one value for all goes to `one`. Rows that repeat stay in the buffer from block to block.
Register read_block(const MapWalk& w, int64_t first, int64_t n, int64_t padded, float* buffer, float* one,
                    const Register& before) {
  Runs runs(w, first);
  if (runs.left() >= n && (runs.stride() == 0 || n == 1)) {
    float value;
    READ_RUN[w.type](runs.at(), 0, 1, &value);
    store(one, splat(value));
    return {one, 0};
  }
  if (w.in_place && runs.left() >= n && runs.stride() == 1 && n == padded) {
    const float* at = (const float*)runs.at();
    return {at, W, nullptr, nullptr, before.at == at};
  }
  const char* copied = runs.repeats(n) ? runs.at() : nullptr;
  if (copied && before.copied == copied) {
    Register kept = before;
    kept.kept = true;
    return kept;
  }
  for (int64_t i = 0, part; i < n; i += part) {
    part = std::min(n - i, runs.left());
    READ_RUN[w.type](runs.at(), runs.stride(), part, buffer + i);
    runs.advance(part);
  }
  std::fill(buffer + n, buffer + padded, 0.0f);
  return {buffer, W, nullptr, copied};
}

// Where n elements of an output may be written as whole vectors, or null.
float* whole_vectors(const MapWalk& w, int64_t first, int64_t n) {
  const Runs runs(w, first);
  return runs.left() >= n && runs.stride() == 1 && n % W == 0 ? (float*)runs.at() : nullptr;
}

void write_block(const MapWalk& w, int64_t first, int64_t n, Register r) {
  Runs runs(w, first);
  for (int64_t i = 0, part; i < n; i += part) {
    part = std::min(n - i, runs.left());
    float* to = (float*)runs.at();
    if (r.step == 0)
      for (int64_t k = 0; k < part; ++k) to[k * runs.stride()] = *r.at;
    else if (runs.stride() == 1)
      std::memmove(to, r.at + i, part * sizeof(float));
    else
      for (int64_t k = 0; k < part; ++k) to[k * runs.stride()] = r.at[i + k];
    runs.advance(part);
  }
}

struct MapBlock {
  const MapPlan& plan;
  float* scratch;
  int64_t first = 0, n = 0, padded = 0;
  Register registers[MAP_REGISTERS] = {};

  float* one(int32_t r) const { return scratch + r * W; }
  float* buffer(int32_t r) const { return scratch + MAP_REGISTERS * W + r * plan.block; }

  // The result of a function whose operands are one value each is one value.
  void compute(const MapInstruction& code, const MapInstruction* next) {
    Register& result = registers[code.to];
    bool same = true, kept = result.by == &code && n == plan.block;
    for (int32_t r : code.operands) same &= registers[r].step == 0, kept &= registers[r].kept;
    if (kept) {
      result.kept = true;
      return;
    }
    float* to = same ? one(code.to) : buffer(code.to);
    if (!same && next && next->function == MAP_store && next->operands[0] == code.to)
      if (float* out = whole_vectors(plan.outputs[next->to], first, n)) to = out;
    MAP_LOOPS[code.function](registers, code, to, same ? W : padded);
    result = {to, same ? 0 : W, &code};
  }

  void write(const MapInstruction& code) const {
    const MapWalk& out = plan.outputs[code.to];
    const Register r = registers[code.operands[0]];
    if (r.step == 0 || r.at != whole_vectors(out, first, n)) write_block(out, first, n, r);
  }

  void run(int64_t from, int64_t count) {
    first = from, n = count, padded = (n + W - 1) / W * W;
    const MapInstruction *code = plan.code.data(), *end = code + plan.code.size();
    for (; code != end; ++code) {
      const int32_t to = code->to;
      if (code->function < MAP_FUNCTIONS) {
        compute(*code, code + 1 < end ? code + 1 : nullptr);
      } else if (code->function == MAP_load) {
        const Register before = registers[to].by == code && n == plan.block ? registers[to] : Register{};
        registers[to] =
            read_block(plan.inputs[code->operands[0]], first, n, padded, buffer(to), one(to), before);
        registers[to].by = code;
      } else if (code->function == MAP_constant) {
        store(one(to), splat(code->x));
        registers[to] = {one(to), 0, code, nullptr, registers[to].by == code};
      } else {
        write(*code);
      }
    }
  }
};

void map(const MapPlan& plan, int64_t item, float* scratch) {
  const int64_t last = std::min((item + 1) * plan.part, plan.elements);
  MapBlock block{plan, scratch};
  for (int64_t first = item * plan.part; first < last; first += plan.block)
    block.run(first, std::min(plan.block, last - first));
}

}  // namespace
}  // namespace de
