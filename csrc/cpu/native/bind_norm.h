// Norms, softmax, sums and attention of a recorded network for Python.
#pragma once
#include "attend.h"
#include "bind_params.h"
#include "norm_groups.h"
#include "norm_rows.h"

namespace de {
namespace {

template <class P>
py::class_<P> bind_walk(py::module_& m, const char* name) {
  py::class_<P> c(m, name, py::module_local());
  c.def(py::init([] { return P{}; }))
      .def_readwrite("batch", &P::batch)
      .def_readwrite("rows", &P::rows)
      .def_readwrite("channels", &P::channels);
  rows(c, "x", &P::x);
  rows(c, "out", &P::out);
  return c;
}

// (address, batch stride)
using SampleTuple = std::tuple<uintptr_t, int64_t>;

template <class P>
void sample(py::class_<P>& c, const char* name, const float* P::*field, int64_t P::*batch) {
  c.def_property(
      name, [=](const P& p) { return SampleTuple((uintptr_t)(p.*field), p.*batch); },
      [=](P& p, const SampleTuple& t) {
        p.*field = reinterpret_cast<const float*>(std::get<0>(t));
        p.*batch = std::get<1>(t);
      });
}

template <class P>
py::class_<P> bind_norm(py::module_& m, const char* name) {
  py::class_<P> c = bind_walk<P>(m, name);
  c.def_readwrite("eps", &P::eps).def_readwrite("unit", &P::unit).def_readwrite("activation", &P::activation);
  address(c, "weight", &P::weight);
  address(c, "bias", &P::bias);
  sample(c, "scale", &P::scale, &P::scale_batch);
  sample(c, "shift", &P::shift, &P::shift_batch);
  return c;
}

// (address, batch stride, head stride, stride of tokens or queries)
template <class H>
void heads(py::class_<AttendParams>& c, const char* name, H AttendParams::*field) {
  using Data = decltype(H::data);
  using Tuple = std::tuple<uintptr_t, int64_t, int64_t, int64_t>;
  c.def_property(
      name,
      [field](const AttendParams& p) {
        const auto& [data, batch, head, token] = p.*field;
        return Tuple(reinterpret_cast<uintptr_t>(data), batch, head, token);
      },
      [field](AttendParams& p, const Tuple& t) {
        const auto& [at, batch, head, token] = t;
        p.*field = H{reinterpret_cast<Data>(at), batch, head, token};
      });
}

void bind_norms(py::module_& m) {
  bind_norm<NormGroupsParams>(m, "NormGroupsParams").def_readwrite("groups", &NormGroupsParams::groups);
  bind_norm<NormRowsParams>(m, "NormRowsParams").def_readwrite("rms", &NormRowsParams::rms);
  bind_walk<SoftmaxRowsParams>(m, "SoftmaxRowsParams");
  bind_walk<ReduceRowsParams>(m, "ReduceRowsParams")
      .def_readwrite("over_rows", &ReduceRowsParams::over_rows)
      .def_readwrite("factor", &ReduceRowsParams::factor);
}

void bind_attend(py::module_& m) {
  py::class_<AttendParams> c(m, "AttendParams", py::module_local());
  c.def(py::init([] { return AttendParams{}; }))
      .def_readwrite("batch", &AttendParams::batch)
      .def_readwrite("heads", &AttendParams::heads)
      .def_readwrite("queries", &AttendParams::queries)
      .def_readwrite("keys", &AttendParams::keys)
      .def_readwrite("dim", &AttendParams::dim)
      .def_readwrite("scale", &AttendParams::scale)
      .def_readwrite("bf16", &AttendParams::bf16);
  heads(c, "q", &AttendParams::q);
  heads(c, "k", &AttendParams::k);
  heads(c, "v", &AttendParams::v);
  heads(c, "out", &AttendParams::out);
  heads(c, "mask", &AttendParams::mask);
}

}  // namespace
}  // namespace de
