// UpsampleParams, PoolParams and EmbeddingParams for Python.
#pragma once
#include "bind_params.h"
#include "embedding.h"
#include "resample.h"

namespace de {
namespace {

template <class Params>
pybind11::class_<Params> picture(pybind11::module_& m, const char* name) {
  pybind11::class_<Params> c(m, name, pybind11::module_local());
  c.def(pybind11::init<>())
      .def_readwrite("batch", &Params::batch)
      .def_readwrite("height", &Params::height)
      .def_readwrite("width", &Params::width)
      .def_readwrite("channels", &Params::channels)
      .def_readwrite("out_height", &Params::out_height)
      .def_readwrite("out_width", &Params::out_width);
  rows(c, "x", &Params::x);
  rows(c, "out", &Params::out);
  return c;
}

void bind_resample(pybind11::module_& m) {
  picture<UpsampleParams>(m, "UpsampleParams")
      .def_readwrite("y_step", &UpsampleParams::y_step)
      .def_readwrite("x_step", &UpsampleParams::x_step);
  picture<PoolParams>(m, "PoolParams")
      .def_readwrite("kernel_y", &PoolParams::kernel_y)
      .def_readwrite("kernel_x", &PoolParams::kernel_x)
      .def_readwrite("stride_y", &PoolParams::stride_y)
      .def_readwrite("stride_x", &PoolParams::stride_x)
      .def_readwrite("greatest", &PoolParams::greatest);
}

void bind_embedding(pybind11::module_& m) {
  pybind11::class_<EmbeddingParams> c(m, "EmbeddingParams", pybind11::module_local());
  c.def(pybind11::init<>())
      .def_readwrite("rows", &EmbeddingParams::rows)
      .def_readwrite("features", &EmbeddingParams::features)
      .def_readwrite("count", &EmbeddingParams::count)
      .def_readwrite("table_row", &EmbeddingParams::table_row)
      .def_readwrite("out_row", &EmbeddingParams::out_row);
  address(c, "table", &EmbeddingParams::table);
  address(c, "labels", &EmbeddingParams::labels);
  address(c, "out", &EmbeddingParams::out);
}

}  // namespace
}  // namespace de
