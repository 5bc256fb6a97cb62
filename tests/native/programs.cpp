// Random programs on two pools that four threads share: every item once, after all of the task before, with
// scratch of its own, and what one throws reaches the caller.
#include <atomic>
#include <cstdio>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "native/program.h"

namespace {

constexpr int THREADS = 4, RUNS = 3;

// How often each item of each task ran.
using Cells = std::vector<std::vector<int>>;

struct Counts {
  std::atomic<long> wrong{0}, thrown{0}, by_workers{0};
};

void spend(int64_t steps) {
  volatile int64_t x = 0;
  for (int64_t i = 0; i < steps; ++i) x = x + 1;
}

struct Item {
  Cells& cells;
  Counts& counts;
  int64_t task, scratch, steps, fails_at;
  std::thread::id caller;

  void operator()(int64_t i, float* own) const {
    const int run = cells[task][i];
    if (task > 0)
      for (const int before : cells[task - 1]) counts.wrong += before != run + 1;
    counts.by_workers += std::this_thread::get_id() != caller;
    counts.wrong += (uintptr_t)own % 64 != 0;
    for (int64_t k = 0; k < scratch; ++k) own[k] = (float)(task + i);
    spend(steps);
    for (int64_t k = 0; k < scratch; ++k) counts.wrong += own[k] != (float)(task + i);
    ++cells[task][i];
    if (i == fails_at) throw std::runtime_error("an item");
  }
};

void one_program(std::mt19937& random, const std::shared_ptr<de::Pool>& pool, Counts& counts) {
  Cells cells(1 + random() % 12);
  const int64_t failing = random() % 8 == 0 ? (int64_t)(random() % cells.size()) : -1;
  de::Program program(pool);
  for (int64_t t = 0; t < (int64_t)cells.size(); ++t) {
    const int64_t items = random() % 4 == 0 ? 1 + random() % 200 : 1 + random() % 7;
    cells[t].assign(items, 0);
    de::Task task;
    task.items = items;
    task.work = random() % 3 ? 1 << 20 : 0;
    task.scratch = 1 + random() % 100;
    const int64_t steps = random() % 4 == 0 ? random() % 5000 : random() % 500;
    const int64_t fails_at = t == failing ? (int64_t)(random() % items) : -1;
    task.run = Item{cells, counts, t, task.scratch, steps, fails_at, std::this_thread::get_id()};
    program.add(std::move(task), "task");
  }
  for (int run = 1; run <= RUNS; ++run) {
    try {
      program.run({}, {});
      counts.wrong += failing >= 0;
    } catch (const std::runtime_error&) {
      counts.wrong += failing < 0;
      ++counts.thrown;
      return;
    }
    for (const std::vector<int>& task : cells)
      for (const int ran : task) counts.wrong += ran != run;
  }
}

}  // namespace

int check_programs(int programs) {
  const std::shared_ptr<de::Pool> pools[] = {std::make_shared<de::Pool>(2), std::make_shared<de::Pool>(3)};
  Counts counts;
  std::vector<std::thread> threads;
  for (int t = 0; t < THREADS; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < programs / THREADS; ++i) one_program(random, pools[t % 2], counts);
    });
  for (std::thread& thread : threads) thread.join();
  std::printf("programs: %d, %ld wrong, %ld thrown, %ld items by workers\n", programs, counts.wrong.load(),
              counts.thrown.load(), counts.by_workers.load());
  return (int)counts.wrong.load();
}
