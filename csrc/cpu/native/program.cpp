#include "program.h"

#include <chrono>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "../run.h"
#include "team.h"

namespace de {

static int64_t now() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

static void refuse_other_count(const char* what, size_t given, size_t wanted) {
  if (given == wanted) return;
  throw std::invalid_argument("the program has " + std::to_string(wanted) + " " + what + ", but " +
                              std::to_string(given) + " addresses were given");
}

void Program::add(Task task, std::string name) {
  pool_->reserve(task.scratch);
  entries_.push_back({std::move(name), std::move(task), false, {}});
}

// One item, and so it runs on the caller's thread, beside which nothing else of the program runs.
void Program::add_call(std::function<void()> call, std::string name) {
  Task task;
  task.run = [call = std::move(call)](int64_t, float*) { call(); };
  entries_.push_back({std::move(name), std::move(task), true, {}});
}

void Program::replay(Pool::Hold& hold) {
  const bool timed = profile_.load(std::memory_order_relaxed);
  for (Entry& entry : entries_) {
    const int64_t start = timed ? now() : 0;
    entry.counts.barriers += hold.run(entry.task);
    ++entry.counts.runs;
    if (!timed) continue;
    entry.counts.ns += now() - start;
    ++entry.counts.timed;
  }
}

static void run_behind(Pool::Hold& hold, const StepParams& p) {
  const Step step(p);
  hold.run({[&step](int64_t item, float*) { step.run(item); }, step.items.count, 0, step.items.work});
  step.end();
}

void Program::run(const std::vector<uintptr_t>& inputs, const std::vector<uintptr_t>& outputs,
                  const StepParams* behind) {
  refuse_other_count("inputs", inputs.size(), inputs_.size());
  refuse_other_count("outputs", outputs.size(), outputs_.size());
  Pool::Hold hold(*pool_);
  // What a parent's thread was running when the process was forked runs no more.
  if (running_ == forks_so_far()) throw std::logic_error("a program was run by one of its own calls");
  struct Running {
    int& at;
    explicit Running(int& at) : at(at) { at = forks_so_far(); }
    ~Running() { at = -1; }
  } running(running_);

  for (size_t i = 0; i < inputs.size(); ++i)
    if (const void* from = reinterpret_cast<const void*>(inputs[i]); from != inputs_[i].data)
      std::memcpy(inputs_[i].data, from, inputs_[i].bytes);
  replay(hold);
  if (behind) run_behind(hold, *behind);
  for (size_t i = 0; i < outputs.size(); ++i)
    if (void* to = reinterpret_cast<void*>(outputs[i]); to != outputs_[i].data)
      std::memcpy(to, outputs_[i].data, outputs_[i].bytes);
}

std::vector<Program::Row> Program::table() {
  const Pool::Hold hold(*pool_);
  std::vector<Row> rows;
  for (const Entry& e : entries_)
    rows.push_back({e.name, e.task.items, e.task.work, e.task.scratch, e.call, e.counts});
  return rows;
}

void Program::reset() {
  const Pool::Hold hold(*pool_);
  for (Entry& entry : entries_) entry.counts = {};
}

}  // namespace de
