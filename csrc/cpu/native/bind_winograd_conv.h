// The Python side of WinogradConvParams.
#pragma once
#include "bind_epilogue.h"
#include "winograd_conv.h"

namespace de {
namespace {

inline void bind_winograd_conv(pybind11::module_& m) {
  pybind11::class_<WinogradConvParams> params(m, "WinogradConvParams", pybind11::module_local());
  params.def(pybind11::init([] { return WinogradConvParams{}; }))
      .def_readwrite("batch", &WinogradConvParams::batch)
      .def_readwrite("channels", &WinogradConvParams::channels)
      .def_readwrite("out_channels", &WinogradConvParams::out_channels)
      .def_readwrite("height", &WinogradConvParams::height)
      .def_readwrite("width", &WinogradConvParams::width)
      .def_readwrite("upsample", &WinogradConvParams::upsample)
      .def_readwrite("tile", &WinogradConvParams::tile)
      .def_readwrite("given", &WinogradConvParams::given);
  rows(params, "x", &WinogradConvParams::x);
  rows(params, "out", &WinogradConvParams::out);
  address(params, "weight", &WinogradConvParams::weight);
  epilogue(params);
}

}  // namespace
}  // namespace de
