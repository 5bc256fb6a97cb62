// The Python module `_cuda`. Importing it calls nothing of CUDA.
#include <array>

#include "bind_layers.h"
#include "bind_step.h"
#include "launch.h"
#include "philox.h"

namespace {

using Stream = uintptr_t;

std::array<uint32_t, 4> philox(const std::array<uint32_t, 4>& c, uint32_t k0, uint32_t k1) {
  const de::Words r = de::philox(de::Words{{c[0], c[1], c[2], c[3]}}, k0, k1);
  return {r.w[0], r.w[1], r.w[2], r.w[3]};
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  namespace py = pybind11;
  m.doc() = "CUDA kernels. Called by diffusion_engine.backends.native only.";
  de::bind_step_params(m);
  de::bind_noise_params(m);
  de::bind_brownian_params(m);
  de::bind_group_norm_params(m);
  de::bind_attention_params(m);
  m.def("objection", &de::objection, py::arg("device"),
        "Why no kernel of this module runs on a device (its driver, its architecture), or None.");
  m.def(
      "step",
      [](const de::StepParams& p, Stream stream, int device) {
        de::step(p, reinterpret_cast<void*>(stream), device);
      },
      py::arg("params"), py::arg("stream"), py::arg("device"),
      "Launches one row of every sample on a stream of a device; does not wait.");
  m.def(
      "noise",
      [](const de::NoiseParams& p, Stream stream, int device) {
        de::noise(p, reinterpret_cast<void*>(stream), device);
      },
      py::arg("params"), py::arg("stream"), py::arg("device"),
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
      [](const de::GroupNormParams& p, Stream stream, int device) {
        de::group_norm(p, reinterpret_cast<void*>(stream), device);
      },
      py::arg("params"), py::arg("stream"), py::arg("device"),
      "Launches the op group_norm on a stream of a device; does not wait.");
  m.def("group_norm_workspace", &de::group_norm_workspace, py::arg("params"));
  m.def("group_norm_on_host", &de::group_norm_on_host, py::arg("params"),
        "Runs the kernel's code on the CPU. For tests.");
  m.def("step_on_host", &de::step_on_host, py::arg("params"), py::arg("multiprocessors") = 132,
        "Runs the kernel's code on the CPU, as the grid of a GPU of that size would. For tests.");
  m.def("noise_on_host", &de::noise_on_host, py::arg("params"), py::arg("multiprocessors") = 132,
        "Runs the kernel's code on the CPU, as the grid of a GPU of that size would. For tests.");
  m.def("brownian_on_host", &de::brownian_on_host, py::arg("params"), py::arg("multiprocessors") = 132,
        "Runs the kernel's code on the CPU, as the grid of a GPU of that size would. For tests.");
  m.def(
      "attention",
      [](const de::AttentionParams& p, Stream stream, int device) {
        de::attention(p, reinterpret_cast<void*>(stream), device);
      },
      py::arg("params"), py::arg("stream"), py::arg("device"),
      "Launches the op attention on a stream of a device; does not wait.");
  m.def("attention_workspace", &de::attention_workspace, py::arg("params"),
        "Bytes that params.workspace has to have.");
  m.def("attention_on_host", &de::attention_on_host, py::arg("params"),
        "Runs the kernel's code on the CPU, the threads of a block as fibers. For tests.");
  m.def("philox", &philox, py::arg("counter"), py::arg("k0"), py::arg("k1"),
        "Philox4x32-10 of a counter and a key, computed on the CPU.");
  m.def("abi", &de::abi, "The numbers of csrc/common/step.h, to compare with ops/layout.py.");
}
