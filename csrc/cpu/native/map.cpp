#include "map.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>

#include "../run.h"

namespace de {
namespace {

struct Traits {
  const char* name;
  int operands, constants, cost;
};

constexpr Traits TRAITS[] = {
#define F(name, operands, constants, cost) {#name, operands, constants, cost},
    DE_MAP_FUNCTIONS(F)
#undef F
};

constexpr int64_t GRAIN = 32768;    // elements of an item
constexpr int64_t ALIGNED = 16;     // blocks are multiples of so many elements
constexpr int64_t FEW = 2 * GRAIN;  // work that a second thread is worth

[[noreturn]] void refuse(size_t i, const std::string& why) {
  throw std::invalid_argument("map: instruction " + std::to_string(i) + " " + why);
}

// Every operand was written before, every number is in range.
void check(const MapParams& p) {
  bool written[MAP_REGISTERS] = {};
  for (size_t i = 0; i < p.code.size(); ++i) {
    const MapInstruction& code = p.code[i];
    if (code.function < 0 || code.function > MAP_constant) refuse(i, "is none that is known");
    const bool load = code.function == MAP_load, store = code.function == MAP_store;
    const int64_t places = store ? (int64_t)p.outputs.size() : MAP_REGISTERS;
    if (code.to < 0 || code.to >= places) refuse(i, "writes a register or output that is not there");
    if (load && (code.operands[0] < 0 || code.operands[0] >= (int64_t)p.inputs.size()))
      refuse(i, "reads an input that is not there");
    const int operands = store ? 1 : code.function < MAP_FUNCTIONS ? TRAITS[code.function].operands : 0;
    for (int k = 0; k < operands; ++k) {
      const int32_t from = code.operands[k];
      if (from < 0 || from >= MAP_REGISTERS || !written[from]) refuse(i, "reads a register that is empty");
    }
    if (!store) written[code.to] = true;
  }
  for (int64_t n : p.size)
    if (n < 0) throw std::invalid_argument("map: a negative size");
}

MapWalk walk_of(const MapTensor& t, const std::array<int64_t, MAP_DIMS>& size) {
  MapWalk w;
  w.data = t.data, w.type = t.type;
  std::vector<std::array<int64_t, 2>> axes;  // from the innermost on
  for (int d = MAP_DIMS - 1; d >= 0; --d) {
    if (size[d] == 1) continue;
    if (!axes.empty() && t.stride[d] == axes.back()[0] * axes.back()[1])
      axes.back()[0] *= size[d];
    else
      axes.push_back({size[d], t.stride[d]});
  }
  if (axes.empty()) axes.push_back({1, 0});
  w.dims = (int)axes.size();
  for (int d = 0; d < w.dims; ++d) w.size[w.dims - 1 - d] = axes[d][0], w.stride[w.dims - 1 - d] = axes[d][1];
  return w;
}

// The first and the last byte's place, for float32.
std::array<const char*, 2> range(const MapWalk& w) {
  std::array<const char*, 2> ends{w.data, w.data + sizeof(float)};
  for (int d = 0; d < w.dims; ++d) ends[w.stride[d] > 0] += (w.size[d] - 1) * w.stride[d] * (int64_t)sizeof(float);
  return ends;
}

// With several outputs one may be written before all is read that another is made of.
void mark_in_place(MapPlan& plan) {
  for (MapWalk& in : plan.inputs) {
    const auto a = range(in);
    in.in_place = in.type == MAP_FLOAT32;
    for (const MapWalk& out : plan.outputs) {
      const auto b = range(out);
      if (plan.outputs.size() > 1 && a[0] < b[1] && b[0] < a[1]) in.in_place = false;
    }
  }
}

int64_t cost(const MapParams& p) {
  int64_t sum = 0;
  for (const MapInstruction& code : p.code)
    sum += code.function < MAP_FUNCTIONS ? TRAITS[code.function].cost : 1;
  return sum;
}

int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

int32_t last_register(const MapPlan& plan) {
  int32_t last = 0;
  for (const MapInstruction& code : plan.code)
    if (code.function != MAP_store) last = std::max(last, code.to);
  return last;
}

// One function of tensors without gaps, which it reads and writes where they lie.
bool direct(const MapPlan& plan) {
  int functions = 0;
  bool plain = true;
  for (const MapInstruction& code : plan.code) functions += code.function < MAP_FUNCTIONS;
  for (const auto* walks : {&plan.inputs, &plan.outputs})
    for (const MapWalk& w : *walks) plain = plain && w.dims == 1 && w.stride[0] <= 1;
  return plain && functions == 1;
}

// The number of registers that are used decides, so that all lie in the first cache; then whole rows of an
// input that repeats, which need not be read again.
int64_t block_of(const MapPlan& plan) {
  if (direct(plan)) return GRAIN;
  const int64_t block = last_register(plan) < 8 ? 1024 : 256;
  int64_t row = ALIGNED;
  for (const MapWalk& in : plan.inputs)
    if (in.dims > 1 && in.stride[in.dims - 2] == 0) row = std::max(row, in.size[in.dims - 1]);
  return row % ALIGNED || row > block ? block : block / row * row;
}

}  // namespace

int64_t MapPlan::scratch() const { return MAP_REGISTERS * ALIGNED + (last_register(*this) + 1) * block; }

MapPlan map_plan(const MapParams& p, int64_t threads) {
  check(p);
  MapPlan plan;
  plan.elements = 1;
  for (int64_t n : p.size) plan.elements *= n;
  for (const MapTensor& t : p.inputs) plan.inputs.push_back(walk_of(t, p.size));
  for (const MapTensor& t : p.outputs) plan.outputs.push_back(walk_of(t, p.size));
  if (plan.elements) mark_in_place(plan);
  plan.code = p.code;
  for (MapInstruction& code : plan.code)  // a function reads three registers: absent ones are the first
    for (int k = 1; k < MAP_OPERANDS; ++k)
      if (code.function >= MAP_FUNCTIONS || k >= TRAITS[code.function].operands)
        code.operands[k] = code.operands[0];
  plan.block = block_of(plan);
  int64_t parts = (plan.elements + GRAIN - 1) / GRAIN;
  if (plan.elements * cost(p) >= FEW) parts = std::max(parts, threads);
  if (parts > 1) parts = rounded_up(parts, std::max<int64_t>(threads, 1));
  // Whole blocks, where that does not leave a thread without work.
  const int64_t few = plan.elements / std::max<int64_t>(parts, 1) >= 4 * plan.block ? plan.block : ALIGNED;
  plan.part = parts ? rounded_up((plan.elements + parts - 1) / parts, few) : 0;
  return plan;
}

Task map_task(const MapParams& p, int64_t threads) {
  const auto plan = std::make_shared<const MapPlan>(map_plan(p, threads));
  Task task;
  task.run = [plan](int64_t item, float* scratch) { kernels().map(*plan, item, scratch); };
  task.items = plan->items();
  task.scratch = plan->scratch();
  task.work = plan->elements * cost(p);
  return task;
}

}  // namespace de
