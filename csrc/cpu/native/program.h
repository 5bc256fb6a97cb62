// A recorded network: tasks on addresses that never change, replayed in their order.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "step.h"
#include "pool.h"
#include "task.h"

namespace de {

struct Counts {
  int64_t runs = 0, barriers = 0;
  int64_t ns = 0, timed = 0;  // of the runs while times were taken, the wait for the last thread included
};

// Owns no memory of tensors. It is built by one thread; from then on any thread may run it.
class Program {
 public:
  struct Row {
    std::string name;
    int64_t items, work, scratch;
    bool call;  // of something outside of this library
    Counts counts;
  };

  explicit Program(std::shared_ptr<Pool> pool) : pool_(std::move(pool)) {}

  void add(Task task, std::string name);
  void add_call(std::function<void()> call, std::string name);
  // Memory that a run fills from the caller's, and memory that it leaves to the caller's.
  void input(void* data, int64_t bytes) { inputs_.push_back({data, bytes}); }
  void output(const void* data, int64_t bytes) { outputs_.push_back({const_cast<void*>(data), bytes}); }

  // One address for each input and each output. Where it is the program's own, nothing is copied. `behind`: the
  // step that reads the outputs, on the same threads.
  void run(const std::vector<uintptr_t>& inputs, const std::vector<uintptr_t>& outputs,
           const StepParams* behind = nullptr);

  int64_t threads() const { return pool_->threads(); }
  void profile(bool on) { profile_ = on; }
  std::vector<Row> table();  // as it is between two runs
  void reset();              // counts from 0 again

 private:
  struct Entry {
    std::string name;
    Task task;
    bool call;
    Counts counts;
  };
  struct Memory {
    void* data;
    int64_t bytes;
  };

  void replay(Pool::Hold& hold);

  const std::shared_ptr<Pool> pool_;
  std::vector<Entry> entries_;
  std::vector<Memory> inputs_, outputs_;
  std::atomic<bool> profile_{false};
  int running_ = -1;  // forks of the process at the start of a run; read and written while the pool is held
};

}  // namespace de
