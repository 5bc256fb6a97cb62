// Fields of parameters for Python: addresses as numbers, rows and heads as tuples of an address and strides.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>

#include "attend.h"
#include "params.h"

namespace de {
namespace {

namespace py = pybind11;

template <class P>
void bind_address(py::class_<P>& cls, const char* name, const float* P::*field) {
  cls.def_property(
      name, [field](const P& p) { return reinterpret_cast<uintptr_t>(p.*field); },
      [field](P& p, uintptr_t address) { p.*field = reinterpret_cast<const float*>(address); });
}

// (address, batch stride, row stride)
template <class P>
void bind_rows(py::class_<P>& cls, const char* name, Rows P::*field) {
  using Tuple = std::tuple<uintptr_t, int64_t, int64_t>;
  cls.def_property(
      name,
      [field](const P& p) {
        const Rows& rows = p.*field;
        return Tuple(reinterpret_cast<uintptr_t>(rows.data), rows.batch, rows.row);
      },
      [field](P& p, const Tuple& t) {
        p.*field = Rows{reinterpret_cast<float*>(std::get<0>(t)), std::get<1>(t), std::get<2>(t)};
      });
}

// (address, batch stride, head stride, stride of tokens or queries)
template <class P, class H>
void bind_heads(py::class_<P>& cls, const char* name, H P::*field) {
  using Data = decltype(H::data);
  using Tuple = std::tuple<uintptr_t, int64_t, int64_t, int64_t>;
  cls.def_property(
      name,
      [field](const P& p) {
        const auto& [data, batch, head, token] = p.*field;
        return Tuple(reinterpret_cast<uintptr_t>(data), batch, head, token);
      },
      [field](P& p, const Tuple& t) {
        p.*field =
            H{reinterpret_cast<Data>(std::get<0>(t)), std::get<1>(t), std::get<2>(t), std::get<3>(t)};
      });
}

}  // namespace
}  // namespace de
