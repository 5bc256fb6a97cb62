// The Python side of products in bf16: which kernels there are, and the one that all others are made of, for tests.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>

#include "counts.h"
#include "kernels.h"

namespace de {
namespace {

inline std::vector<std::string> halves() {
  std::vector<std::string> names;
  for (const HalfKernels* k : half_supported()) names.push_back(k->name);
  return names;
}

inline void set_half(const std::string& name) {
  if (choose_half(name)) return;
  std::string known;
  for (const std::string& each : halves()) known += each + ", ";
  throw std::invalid_argument("bf16 kernels '" + name + "' are none of this machine's: " + known + "emulated");
}

inline void bind_half(pybind11::module_& m) {
  namespace py = pybind11;
  m.def("bf16s", &halves, "What this machine has for products in bf16, best first.");
  m.def("bf16", [] { return half_in_use() ? half_in_use()->name : ""; }, "What is in use; nothing where there is none.");
  m.def("set_bf16", &set_half, "Uses another one, of bf16s() or 'emulated', or '' for none, from now on.");
  m.def(
      "bf16_counts",
      [] {
        py::dict made;
        made["dots"] = amx_counts.dots.load(), made["loads"] = amx_counts.loads.load();
        made["stores"] = amx_counts.stores.load();
        return made;
      },
      "AMX instructions that were emulated so far.");
  m.def("bf16_reset", [] { amx_counts.dots = amx_counts.loads = amx_counts.stores = 0; }, "Counts from 0 again.");
  m.def(
      "bf16_product",
      [](uintptr_t a, int64_t row, const std::vector<int64_t>& offsets, int64_t blocks, uintptr_t panel, int64_t rows,
         uintptr_t to, int64_t to_row, bool add) {
        if (rows < 1 || rows > HALF_ROWS) throw std::invalid_argument("bf16_product takes 1 to 32 rows");
        half_kernels().product((const uint16_t*)a, row, {offsets.data(), (int64_t)offsets.size(), blocks},
                               (const uint16_t*)panel, rows, (float*)to, to_row, add);
      },
      "Rows times a panel; see bf16/kernels.h.", py::arg("a"), py::arg("row"), py::arg("offsets"), py::arg("blocks"),
      py::arg("panel"), py::arg("rows"), py::arg("to"), py::arg("to_row"), py::arg("add"));
}

}  // namespace
}  // namespace de
