// Norms, softmax, sums and attention of a recorded network for Python.
#pragma once
#include "attend.h"
#include "bind_fields.h"
#include "norm_groups.h"
#include "norm_rows.h"

namespace de {
namespace {

template <class P>
void bind_modulation(py::class_<P>& cls) {
  cls.def_readwrite("eps", &P::eps)
      .def_readwrite("base", &P::base)
      .def_readwrite("scale_batch", &P::scale_batch)
      .def_readwrite("shift_batch", &P::shift_batch);
  bind_address(cls, "weight", &P::weight);
  bind_address(cls, "bias", &P::bias);
  bind_address(cls, "scale", &P::scale);
  bind_address(cls, "shift", &P::shift);
}

template <class P>
py::class_<P> bind_walk(py::module_& m, const char* name) {
  py::class_<P> cls(m, name, py::module_local());
  cls.def(py::init([] { return P{}; }))
      .def_readwrite("batch", &P::batch)
      .def_readwrite("rows", &P::rows)
      .def_readwrite("channels", &P::channels);
  bind_rows(cls, "x", &P::x);
  bind_rows(cls, "out", &P::out);
  return cls;
}

void bind_norms(py::module_& m) {
  auto groups = bind_walk<NormGroupsParams>(m, "NormGroupsParams");
  bind_modulation(groups);
  groups.def_readwrite("groups", &NormGroupsParams::groups)
      .def_readwrite("activation", &NormGroupsParams::activation);
  auto rows = bind_walk<NormRowsParams>(m, "NormRowsParams");
  bind_modulation(rows);
  rows.def_readwrite("rms", &NormRowsParams::rms)
      .def_readwrite("scale_row", &NormRowsParams::scale_row)
      .def_readwrite("shift_row", &NormRowsParams::shift_row);
  bind_walk<SoftmaxRowsParams>(m, "SoftmaxRowsParams").def_readwrite("scale", &SoftmaxRowsParams::scale);
  bind_walk<ReduceRowsParams>(m, "ReduceRowsParams")
      .def_readwrite("over_rows", &ReduceRowsParams::over_rows)
      .def_readwrite("factor", &ReduceRowsParams::factor);
}

void bind_attend(py::module_& m) {
  py::class_<AttendParams> cls(m, "AttendParams", py::module_local());
  cls.def(py::init([] { return AttendParams{}; }))
      .def_readwrite("batch", &AttendParams::batch)
      .def_readwrite("heads", &AttendParams::heads)
      .def_readwrite("queries", &AttendParams::queries)
      .def_readwrite("keys", &AttendParams::keys)
      .def_readwrite("dim", &AttendParams::dim)
      .def_readwrite("scale", &AttendParams::scale);
  bind_heads(cls, "q", &AttendParams::q);
  bind_heads(cls, "k", &AttendParams::k);
  bind_heads(cls, "v", &AttendParams::v);
  bind_heads(cls, "out", &AttendParams::out);
  bind_heads(cls, "mask", &AttendParams::mask);
}

}  // namespace
}  // namespace de
