// The Python side of ConvParams. Rows are (address, batch stride, row stride), a vector for each sample is
// (address, batch stride).
#pragma once
#include "bf16/conv_bf16.h"
#include "bind_epilogue.h"
#include "conv.h"

namespace de {
namespace {

inline void bind_conv(pybind11::module_& m) {
  pybind11::class_<ConvParams> params(m, "ConvParams", pybind11::module_local());
  params.def(pybind11::init([] { return ConvParams{}; }))
      .def_readwrite("batch", &ConvParams::batch)
      .def_readwrite("channels", &ConvParams::channels)
      .def_readwrite("out_channels", &ConvParams::out_channels)
      .def_readwrite("height", &ConvParams::height)
      .def_readwrite("width", &ConvParams::width)
      .def_readwrite("out_height", &ConvParams::out_height)
      .def_readwrite("out_width", &ConvParams::out_width)
      .def_readwrite("kernel_height", &ConvParams::kernel_height)
      .def_readwrite("kernel_width", &ConvParams::kernel_width)
      .def_readwrite("stride_y", &ConvParams::stride_y)
      .def_readwrite("stride_x", &ConvParams::stride_x)
      .def_readwrite("pad_top", &ConvParams::pad_top)
      .def_readwrite("pad_left", &ConvParams::pad_left)
      .def_readwrite("dilation_y", &ConvParams::dilation_y)
      .def_readwrite("dilation_x", &ConvParams::dilation_x)
      .def_readwrite("upsample", &ConvParams::upsample)
      .def_readwrite("groups", &ConvParams::groups);
  rows(params, "x", &ConvParams::x);
  rows(params, "out", &ConvParams::out);
  address(params, "weight", &ConvParams::weight);
  address(params, "half", &ConvParams::half);
  epilogue(params);
  m.def("conv_packed_size", &conv_packed_size, "Floats of a packed weight.", pybind11::arg("out_channels"),
        pybind11::arg("channels"), pybind11::arg("taps"), pybind11::arg("groups"));
  m.def(
      "conv_pack",
      [](uintptr_t weight, int64_t out_channels, int64_t channels, int64_t taps, int64_t groups,
         uintptr_t packed) {
        const pybind11::gil_scoped_release release;
        conv_pack((const float*)weight, out_channels, channels, taps, groups, (float*)packed);
      },
      "Packs a weight [out_channels][channels / groups][taps].", pybind11::arg("weight"), pybind11::arg("out_channels"),
      pybind11::arg("channels"), pybind11::arg("taps"), pybind11::arg("groups"), pybind11::arg("packed"));
  m.def("conv_bf16_packed_size", &conv_bf16_packed_size, "Elements of a weight packed in bf16.",
        pybind11::arg("out_channels"), pybind11::arg("channels"), pybind11::arg("taps"));
  m.def(
      "conv_bf16_pack",
      [](uintptr_t weight, int64_t out_channels, int64_t channels, int64_t taps, uintptr_t packed) {
        const pybind11::gil_scoped_release release;
        conv_bf16_pack((const float*)weight, out_channels, channels, taps, (uint16_t*)packed);
      },
      "Rounds and packs a weight [out_channels][channels][taps] of float32.", pybind11::arg("weight"),
      pybind11::arg("out_channels"), pybind11::arg("channels"), pybind11::arg("taps"), pybind11::arg("packed"));
}

}  // namespace
}  // namespace de
