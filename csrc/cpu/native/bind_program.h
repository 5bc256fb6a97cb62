// Pool and Program for Python. A kind of operation joins by a line in bind_program: adds(program, &NAME_task).
#pragma once
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bind_conv.h"
#include "bind_copy.h"
#include "bind_norm.h"
#include "bind_map.h"
#include "bind_winograd_conv.h"
#include "bind_matmul.h"
#include "bind_rows.h"
#include "../checksum.h"
#include "program.h"

namespace de {
namespace {

namespace py = pybind11;

// program.add(params, name): the task on the addresses that params hold now.
// An operation of several tasks has a row of the table for each.
template <class Made, class Params>
void adds(py::class_<Program, std::shared_ptr<Program>>& program, Made (*make)(const Params&, int64_t threads)) {
  program.def(
      "add",
      [make](Program& p, const Params& params, const std::string& name) {
        std::vector<Task> tasks = as_tasks(make(params, p.threads()));
        for (Task& task : tasks) p.add(std::move(task), name);
      },
      py::arg("params"), py::arg("name"), py::call_guard<py::gil_scoped_release>());  // a run may hold the pool
}

// A program is unknown to Python's collector of cycles: a call that holds what holds the program lives on.
void add_call(Program& program, py::function call, std::string name) {
  program.add_call(
      [call = std::move(call)] {
        const py::gil_scoped_acquire locked;
        call();
      },
      std::move(name));
}

// The parameters of the step behind it have the addresses of the program's outputs in them.
void run(Program& program, const std::vector<uintptr_t>& inputs, const std::vector<uintptr_t>& outputs,
         const StepParams* behind) {
  const std::optional<StepParams> own = behind ? std::optional(*behind) : std::nullopt;
  const py::gil_scoped_release release;
  program.run(inputs, outputs, own ? &*own : nullptr);
}

py::list table(Program& program) {
  std::vector<Program::Row> found;
  {
    const py::gil_scoped_release release;  // a run that has the pool may wait for the interpreter
    found = program.table();
  }
  py::list rows;
  for (const Program::Row& e : found) {
    py::dict row;
    row["name"] = e.name;
    row["items"] = e.items;
    row["work"] = e.work;
    row["scratch"] = e.scratch;
    row["call"] = e.call;
    row["runs"] = e.counts.runs;
    row["barriers"] = e.counts.barriers;
    row["ns"] = e.counts.ns;
    row["timed"] = e.counts.timed;
    rows.append(std::move(row));
  }
  return rows;
}

std::vector<uint64_t> checksums_on(Pool& pool, const Ranges& ranges) {
  Checksums sums(ranges);
  Pool::Hold hold(pool);
  hold.run({[&sums](int64_t item, float*) { sums.run(item); }, sums.items(), 0, sums.bytes()});
  return sums.end();
}

void bind_pool(py::module_& m) {
  py::class_<Pool, std::shared_ptr<Pool>>(m, "Pool", py::module_local())
      .def("checksums", &checksums_on, py::call_guard<py::gil_scoped_release>(), py::arg("ranges"),
           "As _cpu.checksums, on these threads.")
      .def(py::init<int64_t>(), py::arg("threads"))
      .def_property_readonly("threads", &Pool::threads)
      .def("spin", &Pool::spin, py::arg("held"), py::arg("idle"), py::call_guard<py::gil_scoped_release>(),
           "Microseconds without news until a thread sleeps, within a run and after one.");
}

void bind_program(py::module_& m) {
  bind_pool(m);
  bind_copy(m);
  bind_resample(m);
  bind_embedding(m);
  const auto unlocked = py::call_guard<py::gil_scoped_release>();
  py::class_<Program, std::shared_ptr<Program>> program(m, "Program", py::module_local());
  program.def(py::init<std::shared_ptr<Pool>>(), py::arg("pool"))
      .def("add_call", &add_call, py::arg("call"), py::arg("name"))
      .def("input", [](Program& p, uintptr_t data, int64_t bytes) { p.input(reinterpret_cast<void*>(data), bytes); },
           py::arg("address"), py::arg("bytes"))
      .def("output", [](Program& p, uintptr_t data, int64_t bytes) { p.output(reinterpret_cast<void*>(data), bytes); },
           py::arg("address"), py::arg("bytes"))
      .def("run", &run, py::arg("inputs"), py::arg("outputs"), py::arg("behind") = nullptr)
      .def("profile", &Program::profile, py::arg("on"))
      .def("reset", &Program::reset, unlocked)
      .def("table", &table, "A dictionary for each task, in their order.");
  adds(program, &copy_task);
  adds(program, &conv_task);
  adds(program, &norm_groups_tasks);
  adds(program, &norm_rows_task);
  adds(program, &softmax_rows_task);
  adds(program, &reduce_rows_task);
  adds(program, &attend_task);
  adds(program, &map_task);
  adds(program, &matmul_task);
  adds(program, &upsample_task);
  adds(program, &pool_task);
  adds(program, &embedding_task);
  adds(program, &winograd_conv_task);
}

}  // namespace
}  // namespace de
