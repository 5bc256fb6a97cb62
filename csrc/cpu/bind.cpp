#include <array>

#include "attention.h"
#include "bind_layers.h"
#include "bind_reductions.h"
#include "bind_step.h"
#include "checksum.h"
#include "group_norm.h"
#include "native/bf16/bind_half.h"
#include "native/bind_conv.h"
#include "native/bind_norm.h"
#include "native/bind_program.h"
#include "native/run_task.h"
#include "native/bind_map.h"
#include "philox.h"
#include "run.h"
#include "winograd.h"

namespace {

namespace py = pybind11;

void set_isa(const std::string& name) {
  if (de::choose(name)) return;
  std::string names;
  for (const de::Kernels* k : de::supported()) names += std::string(names.empty() ? "" : ", ") + k->isa;
  throw py::value_error("this machine cannot run '" + name + "' kernels; it has: " + names);
}

//     p = Conv3x3Params(); p.batch = ...     once for tensors of a kind
//     p.at([view of x, out, residual])       (0, 0, 0, 0, 0) for an absent one
//     conv3x3(p, [address, ...])             x, weight, bias, residual and out of the call
void bind_conv3x3_params(py::module_& m) {
  using de::Conv3x3Params;
  py::class_<Conv3x3Params>(m, "Conv3x3Params", py::module_local())
      .def(py::init([] { return Conv3x3Params{}; }))
      .def_readwrite("batch", &Conv3x3Params::batch)
      .def_readwrite("channels", &Conv3x3Params::channels)
      .def_readwrite("out_channels", &Conv3x3Params::out_channels)
      .def_readwrite("height", &Conv3x3Params::height)
      .def_readwrite("width", &Conv3x3Params::width)
      .def_readwrite("tile", &Conv3x3Params::tile)
      .def_readwrite("x_last", &Conv3x3Params::x_last)
      .def_readwrite("out_last", &Conv3x3Params::out_last)
      .def("at",
           [](Conv3x3Params& p, const std::array<de::ViewTuple, 3>& views) {
             p.x = de::view_of(views[0]);
             p.out = de::view_of(views[1]);
             p.residual = de::view_of(views[2]);
           });
}

de::Conv3x3Params own(de::Conv3x3Params p, const std::array<uintptr_t, 5>& addresses) {
  p.x.data = reinterpret_cast<void*>(addresses[0]);
  p.weight = reinterpret_cast<const float*>(addresses[1]);
  p.bias = reinterpret_cast<const float*>(addresses[2]);
  p.residual.data = reinterpret_cast<void*>(addresses[3]);
  p.out.data = reinterpret_cast<void*>(addresses[4]);
  return p;
}

// Runs on parameters of the call's own, which no other thread can reach.
template <class Params>
void unlocked(void (*run)(const Params&), const Params& p) {
  const py::gil_scoped_release release;
  run(p);
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const de::Kernels* k : de::supported()) names.emplace_back(k->isa);
  return names;
}

std::array<uint32_t, 4> philox(const std::array<uint32_t, 4>& c, const std::array<uint32_t, 2>& k) {
  const de::Words words = de::philox(de::Words{{c[0], c[1], c[2], c[3]}}, k[0], k[1]);
  return {words.w[0], words.w[1], words.w[2], words.w[3]};
}

std::vector<float> normals(uint64_t seed, uint32_t key, uint32_t m, int64_t first, int64_t count) {
  std::vector<float> out(count);
  de::kernels().normals(seed, key, m, first, count, out.data());
  return out;
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels. Called by diffusion_engine.backends only.";
  de::bind_step_params(m);
  de::bind_noise_params(m);
  de::bind_brownian_params(m);
  de::bind_group_norm_params(m);
  de::bind_attention_params(m);
  bind_conv3x3_params(m);
  de::bind_reduction_params(m);
  de::bind_program(m);
  de::bind_conv(m);
  de::bind_norms(m);
  de::bind_attend(m);
  de::bind_run_task(m, &de::conv_task);
  de::bind_run_task(m, &de::matmul_task);
  de::bind_run_task(m, &de::norm_groups_tasks);
  de::bind_run_task(m, &de::norm_rows_task);
  de::bind_run_task(m, &de::softmax_rows_task);
  de::bind_run_task(m, &de::reduce_rows_task);
  de::bind_run_task(m, &de::attend_task);
  de::bind_run_task(m, &de::winograd_conv_task);
  de::bind_matmul(m);
  de::bind_winograd_conv(m);
  de::bind_map_params(m);
  m.def("step", [](const de::StepParams& p, const std::vector<uintptr_t>& outs) {
    unlocked(de::run_step, de::own(p, outs));
  });
  m.def("noise", [](const de::NoiseParams& p, uint32_t key, uint32_t m) {
    unlocked(de::run_noise, de::own(p, key, m));
  });
  m.def("brownian", [](const de::BrownianParams& p) {
    unlocked(de::run_brownian, de::BrownianParams(p));
  });
  m.def("group_norm", [](const de::GroupNormParams& p, const std::array<uintptr_t, 8>& addresses) {
    unlocked(de::run_group_norm, de::own(p, addresses));
  });
  m.def("attention", [](const de::AttentionParams& p, const std::array<uintptr_t, 4>& addresses) {
    unlocked(de::run_attention, de::own(p, addresses));
  });
  m.def("conv3x3", [](const de::Conv3x3Params& p, const std::array<uintptr_t, 5>& addresses) {
    unlocked(de::run_conv3x3, own(p, addresses));
  });
  m.def("norms", [](const de::NormsParams& p, const std::array<uintptr_t, 3>& addresses) {
    unlocked(de::run_norms, de::own(p, addresses));
  });
  m.def("quantile", [](const de::QuantileParams& p, const std::array<uintptr_t, 3>& addresses) {
    unlocked(de::run_quantile, de::own(p, addresses));
  });
  m.def("checksums", &de::checksums, py::call_guard<py::gil_scoped_release>(),
        "One for each (address, bytes).", py::arg("ranges"));
  m.def("abi", &de::abi, "The layout of a row, to compare with diffusion_engine/ops/layout.py.");
  m.attr("debug") = de::DEBUG;
  de::bind_half(m);
  m.def("isas", &isas, "The instruction sets of this machine, best first.");
  m.def("isa", [] { return de::kernels().isa; }, "The instruction set in use.");
  m.def("set_isa", &set_isa, "Uses another instruction set, one of isas(), from now on.");
  m.def("philox", &philox, "Philox4x32-10 of a counter and a key.", py::arg("counter"),
        py::arg("key"));
  m.def("normals", &normals, "Elements first ... first + count - 1 of one sample.", py::arg("seed"),
        py::arg("key"), py::arg("m"), py::arg("first"), py::arg("count"));
}
