// The Python side of MapParams.
//
//     p = MapParams(); p.size = [1, 2, 8, 64, 32]
//     p.input(address, [strides], "float32"); p.output(address, [strides])
//     p.add("load", 0, [0], 0); ...                  to, operands, x
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "map.h"
#include "../scratch.h"

namespace de {
namespace {

struct MapName {
  const char* name;
  int operands, constants;
};

constexpr MapName MAP_NAMES[] = {
#define F(name, operands, constants, cost) {#name, operands, constants},
    DE_MAP_FUNCTIONS(F)
#undef F
    {"load", 1, 0},
    {"store", 1, 0},
    {"constant", 0, 1},
};
constexpr const char* MAP_TYPES[] = {"float32", "float64", "int64", "int32", "bool"};

inline MapTensor map_tensor(uintptr_t address, const std::array<int64_t, MAP_DIMS>& stride,
                            const std::string& type) {
  const auto found = std::find(std::begin(MAP_TYPES), std::end(MAP_TYPES), type);
  if (found == std::end(MAP_TYPES)) throw pybind11::value_error("map: no type " + type);
  return {reinterpret_cast<char*>(address), (int32_t)(found - MAP_TYPES), stride};
}

inline MapInstruction map_instruction(const std::string& name, int32_t to, const std::vector<int32_t>& operands,
                                      float x) {
  const auto found =
      std::find_if(std::begin(MAP_NAMES), std::end(MAP_NAMES), [&](const MapName& n) { return n.name == name; });
  if (found == std::end(MAP_NAMES)) throw pybind11::value_error("map: no function " + name);
  if ((int)operands.size() != found->operands)
    throw pybind11::value_error("map: " + name + " takes " + std::to_string(found->operands) + " operands, not " +
                                std::to_string(operands.size()));
  MapInstruction code;
  code.function = (int32_t)(found - MAP_NAMES), code.to = to, code.x = x;
  std::copy(operands.begin(), operands.end(), code.operands.begin());
  return code;
}

inline void bind_map_params(pybind11::module_& m) {
  namespace py = pybind11;
  py::class_<MapParams>(m, "MapParams", py::module_local())
      .def(py::init([] { return MapParams{}; }))
      .def_readwrite("size", &MapParams::size)
      .def("input",
           [](MapParams& p, uintptr_t address, const std::array<int64_t, MAP_DIMS>& stride, const std::string& type) {
             p.inputs.push_back(map_tensor(address, stride, type));
           })
      .def("output",
           [](MapParams& p, uintptr_t address, const std::array<int64_t, MAP_DIMS>& stride) {
             p.outputs.push_back(map_tensor(address, stride, "float32"));
           })
      .def("add", [](MapParams& p, const std::string& name, int32_t to, const std::vector<int32_t>& operands, float x) { p.code.push_back(map_instruction(name, to, operands, x)); });
  m.def(
      "map",
      [](const MapParams& p, int64_t threads) {
        const Task task = map_task(p, threads);
        const pybind11::gil_scoped_release release;
        for (int64_t item = 0; item < task.items; ++item) task.run(item, de::scratch(task.scratch));
      },
      "All items, cut for so many threads, one after another.", py::arg("params"), py::arg("threads") = 1);
  m.def(
      "map_functions",
      [] {
        py::dict found;
        for (const MapName& n : MAP_NAMES) found[n.name] = py::make_tuple(n.operands, n.constants);
        return found;
      },
      "The functions of MapParams: name to (operands, constants).");
}

}  // namespace
}  // namespace de
