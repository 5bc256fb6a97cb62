// The Python module `_cuda`. Importing it calls nothing of CUDA.
#include <array>

#include "bind_layers.h"
#include "bind_reductions.h"
#include "bind_step.h"
#include "launch.h"
#include "philox.h"

namespace {

using Stream = uintptr_t;
using Outs = std::vector<uintptr_t>;
template <size_t N>
using Addresses = std::array<uintptr_t, N>;

std::array<uint32_t, 4> philox(const std::array<uint32_t, 4>& c, uint32_t k0, uint32_t k1) {
  const de::Words r = de::philox(de::Words{{c[0], c[1], c[2], c[3]}}, k0, k1);
  return {r.w[0], r.w[1], r.w[2], r.w[3]};
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  namespace py = pybind11;
  m.doc() = "CUDA kernels. Called by diffusion_engine.backends only.";
  de::bind_step_params(m);
  de::bind_noise_params(m);
  de::bind_brownian_params(m);
  de::bind_group_norm_params(m);
  de::bind_attention_params(m);
  de::bind_reduction_params(m);
  m.def("objection", &de::objection, py::arg("device"),
        "Why no kernel of this module runs on a device (its driver, its architecture), or None.");
  m.def(
      "step",
      [](const de::StepParams& p, const Outs& outs, Stream stream, int device) {
        de::step(de::own(p, outs), reinterpret_cast<void*>(stream), device);
      },
      py::arg("params"), py::arg("outs"), py::arg("stream"), py::arg("device"),
      "Launches one row of every sample on a stream of a device; does not wait.");
  m.def(
      "noise",
      [](const de::NoiseParams& p, uint32_t key, uint32_t m, Stream stream, int device) {
        de::noise(de::own(p, key, m), reinterpret_cast<void*>(stream), device);
      },
      py::arg("params"), py::arg("key"), py::arg("m"), py::arg("stream"), py::arg("device"),
      "Launches the op noise on a stream of a device; does not wait.");
  m.def(
      "brownian",
      [](const de::BrownianParams& p, Stream stream, int device) {
        de::brownian(p, reinterpret_cast<void*>(stream), device);
      },
      py::arg("params"), py::arg("stream"), py::arg("device"),
      "Launches the op brownian on a stream of a device; does not wait.");
  m.def(
      "group_norm",
      [](const de::GroupNormParams& p, const Addresses<8>& to, uintptr_t workspace, Stream stream,
         int device) {
        de::group_norm(de::own(p, to, workspace), reinterpret_cast<void*>(stream), device);
      },
      py::arg("params"), py::arg("addresses"), py::arg("workspace"), py::arg("stream"),
      py::arg("device"), "Launches the op group_norm on a stream of a device; does not wait.");
  m.def(
      "group_norm_workspace",
      [](const de::GroupNormParams& p, const Addresses<8>& to) {
        return de::group_norm_workspace(de::own(p, to));
      },
      py::arg("params"), py::arg("addresses"), "Bytes that the call's workspace has to have.");
  m.def(
      "group_norm_on_host",
      [](const de::GroupNormParams& p, const Addresses<8>& to, uintptr_t workspace) {
        de::group_norm_on_host(de::own(p, to, workspace));
      },
      py::arg("params"), py::arg("addresses"), py::arg("workspace") = 0,
      "Runs the kernel's code on the CPU. For tests.");
  m.def(
      "step_on_host",
      [](const de::StepParams& p, const Outs& outs, int multiprocessors) {
        de::step_on_host(de::own(p, outs), multiprocessors);
      },
      py::arg("params"), py::arg("outs"), py::arg("multiprocessors") = 132,
      "Runs the kernel's code on the CPU, as the grid of a GPU of that size would. For tests.");
  m.def(
      "noise_on_host",
      [](const de::NoiseParams& p, uint32_t key, uint32_t m, int multiprocessors) {
        de::noise_on_host(de::own(p, key, m), multiprocessors);
      },
      py::arg("params"), py::arg("key"), py::arg("m"), py::arg("multiprocessors") = 132,
      "Runs the kernel's code on the CPU, as the grid of a GPU of that size would. For tests.");
  m.def("brownian_on_host", &de::brownian_on_host, py::arg("params"), py::arg("multiprocessors") = 132,
        "Runs the kernel's code on the CPU, as the grid of a GPU of that size would. For tests.");
  m.def(
      "attention",
      [](const de::AttentionParams& p, const Addresses<4>& to, uintptr_t workspace, Stream stream,
         int device) {
        de::attention(de::own(p, to, workspace), reinterpret_cast<void*>(stream), device);
      },
      py::arg("params"), py::arg("addresses"), py::arg("workspace"), py::arg("stream"),
      py::arg("device"), "Launches the op attention on a stream of a device; does not wait.");
  m.def(
      "attention_workspace",
      [](const de::AttentionParams& p, const Addresses<4>& to) {
        return de::attention_workspace(de::own(p, to));
      },
      py::arg("params"), py::arg("addresses"), "Bytes that the call's workspace has to have.");
  m.def(
      "attention_on_host",
      [](const de::AttentionParams& p, const Addresses<4>& to, uintptr_t workspace) {
        de::attention_on_host(de::own(p, to, workspace));
      },
      py::arg("params"), py::arg("addresses"), py::arg("workspace") = 0,
      "Runs the kernel's code on the CPU, the threads of a block as fibers. For tests.");
  m.def(
      "norms",
      [](const de::NormsParams& p, const Addresses<3>& to, uintptr_t workspace, Stream stream, int device) {
        de::norms(de::own(p, to, workspace), reinterpret_cast<void*>(stream), device);
      },
      py::arg("params"), py::arg("addresses"), py::arg("workspace"), py::arg("stream"),
      py::arg("device"), "Launches the op norms on a stream of a device; does not wait.");
  m.def(
      "norms_workspace",
      [](const de::NormsParams& p, const Addresses<3>& to) { return de::norms_workspace(de::own(p, to)); },
      py::arg("params"), py::arg("addresses"), "Bytes that the call's workspace has to have.");
  m.def(
      "norms_on_host",
      [](const de::NormsParams& p, const Addresses<3>& to, uintptr_t workspace) {
        de::norms_on_host(de::own(p, to, workspace));
      },
      py::arg("params"), py::arg("addresses"), py::arg("workspace") = 0,
      "Runs the kernel's code on the CPU, the threads of a block as fibers. For tests.");
  m.def(
      "quantile",
      [](const de::QuantileParams& p, const Addresses<3>& to, Stream stream, int device) {
        de::quantile(de::own(p, to), reinterpret_cast<void*>(stream), device);
      },
      py::arg("params"), py::arg("addresses"), py::arg("stream"), py::arg("device"),
      "Launches the op quantile on a stream of a device; does not wait.");
  m.def(
      "quantile_on_host",
      [](const de::QuantileParams& p, const Addresses<3>& to, int) { de::quantile_on_host(de::own(p, to)); },
      py::arg("params"), py::arg("addresses"), py::arg("multiprocessors") = 132,
      "Runs the kernel's code on the CPU, the threads of a block as fibers. For tests.");
  m.def("philox", &philox, py::arg("counter"), py::arg("k0"), py::arg("k1"),
        "Philox4x32-10 of a counter and a key, computed on the CPU.");
  m.def("abi", &de::abi, "The numbers of csrc/common/step.h, to compare with ops/layout.py.");
}
