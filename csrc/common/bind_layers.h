// The Python side of GroupNormParams and AttentionParams, the same in `_cpu` and `_cuda`.
//
//     p = GroupNormParams(); p.batch = ...                  once for tensors of a kind
//     p.at([(address, batch, channel, pixel, dtype), ...])  their views, (0, 0, 0, 0, 0) for an absent one
//     group_norm(p, [address, ...])                         a call: p is shared, its addresses are its own
#pragma once
#include <array>

#include "bind_step.h"
#include "layers.h"

namespace de {
namespace {

inline std::array<View*, 8> views_of(GroupNormParams& p) {
  return {&p.x, &p.out, &p.weight, &p.bias, &p.scale, &p.shift, &p.residual, &p.summed};
}

inline std::array<Heads*, 4> heads_of(AttentionParams& p) { return {&p.q, &p.k, &p.v, &p.out}; }

// A call's own parameters: a copy of its kind's with its addresses.
inline GroupNormParams own(GroupNormParams p, const std::array<uintptr_t, 8>& addresses,
                           uintptr_t workspace = 0) {
  for (size_t i = 0; i < addresses.size(); ++i)
    views_of(p)[i]->data = reinterpret_cast<void*>(addresses[i]);
  p.workspace = reinterpret_cast<void*>(workspace);
  return p;
}

inline AttentionParams own(AttentionParams p, const std::array<uintptr_t, 4>& addresses,
                           uintptr_t workspace = 0) {
  for (size_t i = 0; i < addresses.size(); ++i)
    heads_of(p)[i]->data = reinterpret_cast<void*>(addresses[i]);
  p.workspace = reinterpret_cast<void*>(workspace);
  return p;
}

void bind_group_norm_params(py::module_& m) {
  py::class_<GroupNormParams>(m, "GroupNormParams", py::module_local())
      .def(py::init([] { return GroupNormParams{}; }))
      .def_readwrite("batch", &GroupNormParams::batch)
      .def_readwrite("channels", &GroupNormParams::channels)
      .def_readwrite("pixels", &GroupNormParams::pixels)
      .def_readwrite("groups", &GroupNormParams::groups)
      .def_readwrite("silu", &GroupNormParams::silu)
      .def_readwrite("eps", &GroupNormParams::eps)
      .def("at",
           [](GroupNormParams& p, const std::array<ViewTuple, 8>& views) {
             for (size_t i = 0; i < views.size(); ++i) *views_of(p)[i] = view_of(views[i]);
           });
}

void bind_attention_params(py::module_& m) {
  py::class_<AttentionParams>(m, "AttentionParams", py::module_local())
      .def(py::init([] { return AttentionParams{}; }))
      .def_readwrite("batch", &AttentionParams::batch)
      .def_readwrite("heads", &AttentionParams::heads)
      .def_readwrite("queries", &AttentionParams::queries)
      .def_readwrite("keys", &AttentionParams::keys)
      .def_readwrite("dim", &AttentionParams::dim)
      .def_readwrite("dtype", &AttentionParams::dtype)
      .def_readwrite("scale", &AttentionParams::scale)
      .def("at",
           [](AttentionParams& p, const std::array<std::array<int64_t, 3>, 4>& strides) {
             for (size_t i = 0; i < strides.size(); ++i)
               *heads_of(p)[i] = Heads{nullptr, strides[i][0], strides[i][1], strides[i][2]};
           });
}

}  // namespace
}  // namespace de
