// Properties for what the operations of a recorded network share.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>

#include "params.h"

namespace de {
namespace {

namespace py = pybind11;

using RowsTuple = std::tuple<uintptr_t, int64_t, int64_t>;  // address, batch stride, row stride
using SampleTuple = std::tuple<uintptr_t, int64_t>;         // address, batch stride

inline Rows rows_of(const RowsTuple& t) {
  return Rows{reinterpret_cast<float*>(std::get<0>(t)), std::get<1>(t), std::get<2>(t)};
}

template <class Params>
void rows_property(py::class_<Params>& type, const char* name, Rows Params::*member) {
  type.def_property(name, nullptr, [member](Params& p, const RowsTuple& t) { p.*member = rows_of(t); });
}

template <class Params>
void address_property(py::class_<Params>& type, const char* name, const float* Params::*member) {
  type.def_property(name, nullptr,
                    [member](Params& p, uintptr_t at) { p.*member = reinterpret_cast<const float*>(at); });
}

// bias, shift, activation (its number in params.h), gate, residual.
template <class Params>
void epilogue_properties(py::class_<Params>& type) {
  type.def_property("bias", nullptr,
                    [](Params& p, uintptr_t at) { p.epilogue.bias = reinterpret_cast<const float*>(at); });
  type.def_property("shift", nullptr, [](Params& p, const SampleTuple& t) {
    p.epilogue.shift = reinterpret_cast<const float*>(std::get<0>(t));
    p.epilogue.shift_batch = std::get<1>(t);
  });
  type.def_property("gate", nullptr, [](Params& p, const SampleTuple& t) {
    p.epilogue.gate = reinterpret_cast<const float*>(std::get<0>(t));
    p.epilogue.gate_batch = std::get<1>(t);
  });
  type.def_property(
      "activation", [](const Params& p) { return p.epilogue.activation; },
      [](Params& p, int32_t activation) { p.epilogue.activation = activation; });
  type.def_property("residual", nullptr,
                    [](Params& p, const RowsTuple& t) { p.epilogue.residual = rows_of(t); });
}

}  // namespace
}  // namespace de
