// The Python side of MatmulParams. Matrices are (address, batch stride, head stride, row stride).
#pragma once
#include "bind_params.h"
#include "matmul.h"

namespace de {
namespace {

inline void matrices(pybind11::class_<MatmulParams>& c, const char* name, Matrices MatmulParams::*field) {
  using Tuple = std::tuple<uintptr_t, int64_t, int64_t, int64_t>;
  c.def_property(
      name,
      [field](const MatmulParams& p) {
        const Matrices& m = p.*field;
        return Tuple(reinterpret_cast<uintptr_t>(m.data), m.batch, m.head, m.row);
      },
      [field](MatmulParams& p, const Tuple& t) {
        p.*field = {reinterpret_cast<float*>(std::get<0>(t)), std::get<1>(t), std::get<2>(t), std::get<3>(t)};
      });
}

inline void bind_matmul(pybind11::module_& m) {
  pybind11::class_<MatmulParams> params(m, "MatmulParams", pybind11::module_local());
  params.def(pybind11::init([] { return MatmulParams{}; }))
      .def_readwrite("batch", &MatmulParams::batch)
      .def_readwrite("heads", &MatmulParams::heads)
      .def_readwrite("rows", &MatmulParams::rows)
      .def_readwrite("columns", &MatmulParams::columns)
      .def_readwrite("depth", &MatmulParams::depth)
      .def_readwrite("transposed", &MatmulParams::transposed)
      .def_readwrite("alpha", &MatmulParams::alpha);
  matrices(params, "a", &MatmulParams::a);
  matrices(params, "b", &MatmulParams::b);
  matrices(params, "out", &MatmulParams::out);
}

}  // namespace
}  // namespace de
