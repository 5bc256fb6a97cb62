// A fused elementwise operation of a recorded network: a few instructions over registers, each of which holds
// the values of some hundred elements. An element depends on the elements at its own place alone, by the
// same instructions wherever it lies, so that its bits depend on no batch, no item and no thread.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "task.h"

namespace de {

constexpr int MAP_DIMS = 5, MAP_REGISTERS = 16, MAP_OPERANDS = 3;

// Name, operands, constants (x or none), cost of an element beside that of a sum.
//   softplus  log(1 + e^a), and a above 20    where        b where a is not 0, else c
//   pow(x)    a to the power x                comparisons  1 or 0
//   round     to even
#define DE_MAP_FUNCTIONS(F)                                                                              \
  F(add, 2, 0, 1) F(subtract, 2, 0, 1) F(multiply, 2, 0, 1) F(divide, 2, 0, 3) F(maximum, 2, 0, 1)       \
  F(minimum, 2, 0, 1) F(negate, 1, 0, 1) F(abs, 1, 0, 1) F(square, 1, 0, 1) F(sqrt, 1, 0, 3)             \
  F(rsqrt, 1, 0, 6) F(reciprocal, 1, 0, 3) F(exp, 1, 0, 8) F(log, 1, 0, 10) F(sin, 1, 0, 12)             \
  F(cos, 1, 0, 12) F(tanh, 1, 0, 12) F(sigmoid, 1, 0, 10) F(silu, 1, 0, 10) F(gelu, 1, 0, 16)            \
  F(gelu_tanh, 1, 0, 16) F(erf, 1, 0, 14) F(relu, 1, 0, 1) F(softplus, 1, 0, 18) F(mish, 1, 0, 12)       \
  F(hardswish, 1, 0, 2) F(pow, 1, 1, 100) F(where, 3, 0, 1) F(gt, 2, 0, 1) F(ge, 2, 0, 1)                \
  F(lt, 2, 0, 1) F(le, 2, 0, 1) F(eq, 2, 0, 1) F(ne, 2, 0, 1) F(floor, 1, 0, 1) F(round, 1, 0, 1)

enum MapFunction : int32_t {
#define F(name, ...) MAP_##name,
  DE_MAP_FUNCTIONS(F)
#undef F
  MAP_FUNCTIONS,
  MAP_load = MAP_FUNCTIONS,  // register `to` = input operands[0]
  MAP_store,                 // output `to` = register operands[0]
  MAP_constant,              // register `to` = x
};

enum MapType : int32_t { MAP_FLOAT32, MAP_FLOAT64, MAP_INT64, MAP_INT32, MAP_BOOL };

struct MapInstruction {
  int32_t function = 0, to = 0;
  std::array<int32_t, MAP_OPERANDS> operands{};  // registers
  float x = 0;
};

// Element i of the operation is at data + sum of i[d] stride[d], in elements of the type. A stride may be 0.
// Values are rounded to float32 as they are read. Outputs are float32.
struct MapTensor {
  char* data = nullptr;
  int32_t type = MAP_FLOAT32;
  std::array<int64_t, MAP_DIMS> stride{};
};

// The memory of an output may be that of an input with the same strides. Otherwise no element of an output
// is one of an input or of another output.
struct MapParams {
  std::array<int64_t, MAP_DIMS> size{1, 1, 1, 1, 1};
  std::vector<MapTensor> inputs, outputs;
  std::vector<MapInstruction> code;
};

// A tensor with the fewest axes that say the same; the last one is the innermost.
struct MapWalk {
  char* data = nullptr;
  int32_t type = MAP_FLOAT32;
  bool in_place = false;  // of an input: may be read where it lies until the end
  int dims = 0;
  std::array<int64_t, MAP_DIMS> size{}, stride{};
};

struct MapPlan {
  int64_t elements = 0, part = 0, block = 0;  // in all, of an item, of a register
  std::vector<MapWalk> inputs, outputs;
  std::vector<MapInstruction> code;

  int64_t items() const { return part ? (elements + part - 1) / part : 0; }
  int64_t scratch() const;
};

// Throws std::invalid_argument, with the reason, for code that cannot run.
MapPlan map_plan(const MapParams&, int64_t threads);
Task map_task(const MapParams&, int64_t threads);

}  // namespace de
