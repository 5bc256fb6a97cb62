// One operation of a recorded network, on addresses that never change.
#pragma once
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace de {

// Work items that any thread may run, in any order and beside one another: no item reads what another
// one writes, and what an item computes depends neither on who runs it nor on how many threads there are.
struct Task {
  std::function<void(int64_t item, float* scratch)> run;
  int64_t items = 1;
  int64_t scratch = 0;  // floats that the thread of an item needs
  int64_t work = 0;     // multiplications, or elements read: below some size one thread does it all
};

inline std::vector<Task> as_tasks(Task task) { return {std::move(task)}; }
inline std::vector<Task> as_tasks(std::vector<Task> tasks) { return tasks; }

}  // namespace de
