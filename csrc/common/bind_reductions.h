// The Python side of NormsParams and QuantileParams, the same in `_cpu` and `_cuda`: views without
// addresses are set once, the addresses of a call go with it.
#pragma once
#include <array>

#include "bind_step.h"
#include "reductions.h"

namespace de {
namespace {

// [out, x, y]
inline NormsParams own(NormsParams p, const std::array<uintptr_t, 3>& addresses, uintptr_t workspace = 0) {
  p.out = reinterpret_cast<double*>(addresses[0]);
  p.x.data = reinterpret_cast<void*>(addresses[1]);
  p.y.data = reinterpret_cast<void*>(addresses[2]);
  p.workspace = reinterpret_cast<void*>(workspace);
  return p;
}

// [out, x, q]
inline QuantileParams own(QuantileParams p, const std::array<uintptr_t, 3>& addresses) {
  p.out = reinterpret_cast<float*>(addresses[0]);
  p.x.data = reinterpret_cast<void*>(addresses[1]);
  p.q = reinterpret_cast<const double*>(addresses[2]);
  return p;
}

void bind_reduction_params(py::module_& m) {
  py::class_<NormsParams> norms(m, "NormsParams", py::module_local());
  norms.def(py::init([] { return NormsParams{}; }))
      .def_readwrite("batch", &NormsParams::batch)
      .def_readwrite("channels", &NormsParams::channels)
      .def_readwrite("pixels", &NormsParams::pixels);
  def_view(norms, "x", &NormsParams::x);
  def_view(norms, "y", &NormsParams::y);
  py::class_<QuantileParams> quantile(m, "QuantileParams", py::module_local());
  quantile.def(py::init([] { return QuantileParams{}; }))
      .def_readwrite("batch", &QuantileParams::batch)
      .def_readwrite("channels", &QuantileParams::channels)
      .def_readwrite("pixels", &QuantileParams::pixels);
  def_view(quantile, "x", &QuantileParams::x);
}

}  // namespace
}  // namespace de
