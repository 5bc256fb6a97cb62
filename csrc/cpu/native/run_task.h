// Tasks without a program, for tests.
#pragma once
#include <omp.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "task.h"

namespace de {
namespace {

namespace py = pybind11;

// Made for `threads`, run by as many; `backwards`, the last item first. Scratch begins as NaN.
inline void run_task(const std::vector<Task>& tasks, int64_t threads, int64_t calls, bool backwards) {
#pragma omp parallel num_threads((int)threads) if (threads > 1)
  {
    int64_t most = 0;
    for (const Task& task : tasks) most = std::max(most, task.scratch);
    std::vector<float> own(most + 16, std::numeric_limits<float>::quiet_NaN());
    float* scratch = own.data() + (64 - (uintptr_t)own.data() % 64) % 64 / sizeof(float);
    for (int64_t call = 0; call < calls; ++call)
      for (const Task& task : tasks) {
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < task.items; ++i) task.run(backwards ? task.items - 1 - i : i, scratch);
      }
  }
}

// The number of tasks.
template <class Made, class Params>
void bind_run_task(py::module_& m, Made (*make)(const Params&, int64_t threads)) {
  m.def(
      "run_task",
      [make](const Params& p, int64_t threads, int64_t calls, bool backwards) {
        const py::gil_scoped_release release;
        const std::vector<Task> tasks = as_tasks(make(p, threads));
        run_task(tasks, threads, calls, backwards);
        return (int64_t)tasks.size();
      },
      py::arg("params"), py::arg("threads") = 1, py::arg("calls") = 1, py::arg("backwards") = false);
}

}  // namespace
}  // namespace de
