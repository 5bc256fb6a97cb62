// CopyParams for Python.
#pragma once
#include "bind_params.h"
#include "copy.h"

namespace de {
namespace {

void bind_copy(pybind11::module_& m) {
  pybind11::class_<CopyParams> c(m, "CopyParams", pybind11::module_local());
  c.def(pybind11::init<>())
      .def_readwrite("sizes", &CopyParams::sizes)
      .def_readwrite("inside", &CopyParams::inside)
      .def_readwrite("before", &CopyParams::before)
      .def_readwrite("x_strides", &CopyParams::x_strides)
      .def_readwrite("out_strides", &CopyParams::out_strides)
      .def_readwrite("value", &CopyParams::value);
  address(c, "x", &CopyParams::x);
  address(c, "out", &CopyParams::out);
}

}  // namespace
}  // namespace de
