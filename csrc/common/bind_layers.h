// The Python side of GroupNormParams and AttentionParams, the same in `_cpu` and `_cuda`.
//
//     p = GroupNormParams(); p.batch = ...                  once for tensors of a kind
//     p.at([(address, batch, channel, pixel, dtype), ...])  their views, (0, 0, 0, 0, 0) for an absent one
//     p.move([address, ...])                                before each launch on other tensors
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

void bind_group_norm_params(py::module_& m) {
  py::class_<GroupNormParams> c(m, "GroupNormParams", py::module_local());
  c.def(py::init([] { return GroupNormParams{}; }))
      .def_readwrite("batch", &GroupNormParams::batch)
      .def_readwrite("channels", &GroupNormParams::channels)
      .def_readwrite("pixels", &GroupNormParams::pixels)
      .def_readwrite("groups", &GroupNormParams::groups)
      .def_readwrite("silu", &GroupNormParams::silu)
      .def_readwrite("eps", &GroupNormParams::eps)
      .def("at",
           [](GroupNormParams& p, const std::array<ViewTuple, 8>& views) {
             for (size_t i = 0; i < views.size(); ++i) *views_of(p)[i] = view_of(views[i]);
           })
      .def("move", [](GroupNormParams& p, const std::array<uintptr_t, 8>& addresses) {
        for (size_t i = 0; i < addresses.size(); ++i)
          views_of(p)[i]->data = reinterpret_cast<void*>(addresses[i]);
      });
  def_address(c, "workspace", &GroupNormParams::workspace);
}

void bind_attention_params(py::module_& m) {
  py::class_<AttentionParams> c(m, "AttentionParams", py::module_local());
  c.def(py::init([] { return AttentionParams{}; }))
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
           })
      .def("move", [](AttentionParams& p, const std::array<uintptr_t, 4>& addresses) {
        for (size_t i = 0; i < addresses.size(); ++i)
          heads_of(p)[i]->data = reinterpret_cast<void*>(addresses[i]);
      });
  def_address(c, "workspace", &AttentionParams::workspace);
}

}  // namespace
}  // namespace de
