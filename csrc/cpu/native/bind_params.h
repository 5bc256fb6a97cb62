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

}  // namespace
}  // namespace de
