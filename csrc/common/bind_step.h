// The Python side of StepParams, NoiseParams and BrownianParams, the same in `_cpu` and `_cuda`. Addresses are
// integers; a view is (address, batch stride, channel stride, pixel stride, dtype code).
//
//     p = StepParams(); p.batch = ...; p.slot = [view, ...]; p.row = tensor.data_ptr(); ...
//     p.out = [view, ...]; p.blocks = [...]; p.out_entries = [...]     the outputs' layouts: p serves all calls with such outputs
//     step(p, [address, ...])                    in _cpu: where the outputs of this call lie
//     step(p, [address, ...], stream, device)    in _cuda: the address of the stream, the number of the device
//
// Parameters are shared by threads: a call copies them, with what is its own, before it lets go of the
// interpreter's lock.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <vector>

#include "noise.h"
#include "step.h"

namespace de {
namespace {

namespace py = pybind11;
using ViewTuple = std::tuple<uintptr_t, int64_t, int64_t, int64_t, int32_t>;

View view_of(const ViewTuple& t) {
  return View{reinterpret_cast<void*>(std::get<0>(t)), std::get<1>(t), std::get<2>(t),
              std::get<3>(t), std::get<4>(t)};
}

// More than N entries would be written past the array.
template <class To, class From, size_t N, class Map>
void fill(To (&to)[N], const std::vector<From>& from, const char* name, Map map) {
  if (from.size() > N)
    throw py::value_error(std::string(name) + " has " + std::to_string(from.size()) +
                          " entries; at most " + std::to_string(N) + " are taken");
  for (size_t i = 0; i < N; ++i) to[i] = i < from.size() ? map(from[i]) : To{};
}

template <class Params, class T>
void def_address(py::class_<Params>& c, const char* name, T* Params::*member) {
  c.def_property(
      name, [member](const Params& p) { return reinterpret_cast<uintptr_t>(p.*member); },
      [member](Params& p, uintptr_t address) { p.*member = reinterpret_cast<T*>(address); });
}

template <class Params>
void def_view(py::class_<Params>& c, const char* name, View Params::*member) {
  c.def_property(name, nullptr,
                 [member](Params& p, const ViewTuple& t) { p.*member = view_of(t); });
}

// A call's own parameters: a copy of the shared ones with where its outputs lie.
inline StepParams own(StepParams p, const std::vector<uintptr_t>& outs) {
  if (outs.size() != (size_t)p.tensors)
    throw py::value_error(std::to_string(outs.size()) + " addresses for the layouts of " +
                          std::to_string(p.tensors) + " outputs");
  for (size_t i = 0; i < outs.size(); ++i) p.out[i].data = reinterpret_cast<void*>(outs[i]);
  return p;
}

inline NoiseParams own(NoiseParams p, uint32_t key, uint32_t m) {
  p.key = key;
  p.m = m;
  return p;
}

void bind_step_params(py::module_& m) {
  py::class_<StepParams> c(m, "StepParams", py::module_local());
  c.def(py::init([] { return StepParams{}; }))
      .def_readwrite("batch", &StepParams::batch)
      .def_readwrite("channels", &StepParams::channels)
      .def_readwrite("pixels", &StepParams::pixels)
      .def_readwrite("block", &StepParams::block)
      .def_readwrite("slots", &StepParams::slots)
      .def_readwrite("outputs", &StepParams::outputs)
      .def_readwrite("entries", &StepParams::entries)
      .def_readwrite("tensors", &StepParams::tensors)
      .def_readwrite("inputs", &StepParams::inputs)
      .def_readwrite("normals", &StepParams::normals)
      .def_readwrite("learned", &StepParams::learned)
      .def_readwrite("noise_draw", &StepParams::noise_draw)
      .def_readwrite("label_dtype", &StepParams::label_dtype)
      .def_readwrite("rows", &StepParams::rows)
      .def_readwrite("room", &StepParams::room)
      .def_property("slot", nullptr,
                    [](StepParams& p, const std::vector<ViewTuple>& views) {
                      fill(p.slot, views, "slot", view_of);
                      p.slots = (int32_t)views.size();
                    })
      .def_property("out", nullptr,
                    [](StepParams& p, const std::vector<ViewTuple>& views) {
                      fill(p.out, views, "out", view_of);
                      p.tensors = (int32_t)views.size();
                    })
      .def_property("blocks", nullptr, [](StepParams& p, const std::vector<int32_t>& blocks) {
        fill(p.blocks, blocks, "blocks", [](int32_t n) { return n; });
      })
      .def_property("out_entries", nullptr, [](StepParams& p, const std::vector<int64_t>& entries) {
        fill(p.out_entries, entries, "out_entries", [](int64_t n) { return n; });
      });
  def_view(c, "net_in", &StepParams::net_in);
  def_view(c, "noise", &StepParams::noise);
  def_view(c, "mask", &StepParams::mask);
  def_view(c, "known", &StepParams::known);
  def_view(c, "denoised", &StepParams::denoised);
  def_address(c, "label", &StepParams::label);
  def_address(c, "end_label", &StepParams::end_label);
  def_address(c, "row", &StepParams::row);
  def_address(c, "seed", &StepParams::seed);
  def_address(c, "src", &StepParams::src);
  def_address(c, "dst", &StepParams::dst);
  def_address(c, "given", &StepParams::given);
  def_address(c, "status", &StepParams::status);
  def_address(c, "ticket", &StepParams::ticket);
  def_address(c, "coef", &StepParams::coef);
  def_address(c, "index", &StepParams::index);
  def_address(c, "labels", &StepParams::labels);
}

void bind_noise_params(py::module_& m) {
  py::class_<NoiseParams> c(m, "NoiseParams", py::module_local());
  c.def(py::init([] { return NoiseParams{}; }))
      .def_readwrite("batch", &NoiseParams::batch)
      .def_readwrite("channels", &NoiseParams::channels)
      .def_readwrite("pixels", &NoiseParams::pixels)
      .def_readwrite("rows", &NoiseParams::rows);
  def_view(c, "out", &NoiseParams::out);
  def_address(c, "seed", &NoiseParams::seed);
  def_address(c, "row", &NoiseParams::row);
  def_address(c, "index", &NoiseParams::index);
}

void bind_brownian_params(py::module_& m) {
  py::class_<BrownianParams> c(m, "BrownianParams", py::module_local());
  c.def(py::init([] { return BrownianParams{}; }))
      .def_readwrite("batch", &BrownianParams::batch)
      .def_readwrite("channels", &BrownianParams::channels)
      .def_readwrite("pixels", &BrownianParams::pixels)
      .def_readwrite("draws", &BrownianParams::draws)
      .def_readwrite("rows", &BrownianParams::rows)
      .def_readwrite("out_draw", &BrownianParams::out_draw);
  def_view(c, "out", &BrownianParams::out);
  def_address(c, "seed", &BrownianParams::seed);
  def_address(c, "row", &BrownianParams::row);
  def_address(c, "terms", &BrownianParams::terms);
  def_address(c, "weight", &BrownianParams::weight);
}

// The layout's numbers under the names of diffusion_engine/ops/layout.py.
py::dict abi() {
  py::dict d;
#define DE_ABI(name) d[#name] = name;
  DE_ABI(SLOTS) DE_ABI(OUTPUTS) DE_ABI(NORMALS) DE_ABI(INPUTS) DE_ABI(TENSORS) DE_ABI(LABELS)
  DE_ABI(P) DE_ABI(Q) DE_ABI(RAW) DE_ABI(LO) DE_ABI(HI) DE_ABI(SCALE) DE_ABI(A) DE_ABI(D) DE_ABI(E)
  DE_ABI(C) DE_ABI(C_IN) DE_ABI(V0) DE_ABI(V1) DE_ABI(U0) DE_ABI(U1) DE_ABI(COEF)
  DE_ABI(NEXT) DE_ABI(KEY) DE_ABI(READS) DE_ABI(WRITES) DE_ABI(FLAGS) DE_ABI(READ) DE_ABI(JV)
  DE_ABI(H) DE_ABI(INDEX)
  DE_ABI(DEPTH) DE_ABI(HEADER) DE_ABI(TERMS)
  DE_ABI(DENOISED) DE_ABI(RAW_USED) DE_ABI(LEARNED) DE_ABI(MASKED) DE_ABI(NORMAL)
#undef DE_ABI
  return d;
}

}  // namespace
}  // namespace de
