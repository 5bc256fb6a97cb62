// What the parameters of operations have in common for Python: addresses are numbers.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>

#include "params.h"

namespace de {
namespace {

// p.NAME = tensor.data_ptr()
template <class Params, class Owner, class T>
void address(pybind11::class_<Params>& c, const char* name, T* Owner::*field) {
  c.def_property(
      name, [field](const Params& p) { return reinterpret_cast<uintptr_t>(p.*field); },
      [field](Params& p, uintptr_t value) { p.*field = reinterpret_cast<T*>(value); });
}

// p.NAME = (address, elements from sample to sample, elements from row to row)
template <class Params, class Owner>
void rows(pybind11::class_<Params>& c, const char* name, Rows Owner::*field) {
  using Tuple = std::tuple<uintptr_t, int64_t, int64_t>;
  c.def_property(
      name,
      [field](const Params& p) {
        const Rows& r = p.*field;
        return Tuple(reinterpret_cast<uintptr_t>(r.data), r.batch, r.row);
      },
      [field](Params& p, const Tuple& t) {
        p.*field = {reinterpret_cast<float*>(std::get<0>(t)), std::get<1>(t), std::get<2>(t)};
      });
}

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
