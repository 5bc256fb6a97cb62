// The threads of a pool and what they tell one another.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "task.h"

namespace de {

// What is left of a thread's share of a task's items: the next one in the upper half, the end in the lower.
// Its owner takes from the front and the others from the back, so that a thread meets the same rows in task
// after task. Who takes one takes it from the task that runs, whenever he looked: that task cannot end
// before the item does. Hence no numbers of tasks, and nobody waits for a thread that is late.
struct alignas(64) Share {
  std::atomic<uint64_t> left{0};

  void set(int64_t first, int64_t last) {
    left.store((uint64_t)first << 32 | (uint64_t)last, std::memory_order_release);
  }
  bool any() const {
    const uint64_t seen = left.load(std::memory_order_relaxed);
    return seen >> 32 < (seen & 0xFFFFFFFFu);
  }
  // -1 where there is none.
  int64_t take(bool own);
};

struct Scratch {
  std::unique_ptr<float[]> kept;
  int64_t floats = 0;
  float* data = nullptr;

  void grow(int64_t wanted);
};

struct Team {
  Team(int64_t threads, int64_t floats, int64_t held_us, int64_t idle_us);
  ~Team();

  void reserve(int64_t floats);
  void hold();
  void release() { held.store(false, std::memory_order_relaxed); }
  bool run(const Task& task);

  std::recursive_mutex lock;
  std::atomic<int64_t> held_us, idle_us;
  const int forks;  // of the process when the threads started: a child has none of them

 private:
  void serve(int64_t me);
  bool await(int64_t me);
  void sleep(int64_t me);
  void wake();
  int64_t help(int64_t me);
  void item(int64_t me, int64_t index);
  void publish(const Task& task);
  void join(int64_t others, int64_t start);
  template <class Came>
  bool spin(Came came);

  struct alignas(64) {
    const Task* task = nullptr;
    uint32_t rounding = 0;  // the caller's mode of denormals, which all items follow
  } current;
  alignas(64) std::atomic<uint32_t> done{0};      // items, by workers
  std::atomic<uint32_t> caller_sleeps{0};
  alignas(64) std::atomic<uint32_t> signal{0};    // what workers sleep on
  std::atomic<uint32_t> sleepers{0};              // that nobody has woken
  std::atomic<bool> stop{false}, held{false};
  std::atomic<int64_t> busy_until{0};             // nanoseconds
  alignas(64) std::atomic<bool> failed{false};
  std::exception_ptr error;
  std::vector<Share> shares;
  std::vector<Scratch> scratch;
  std::vector<std::thread> workers;
};

int forks_so_far();

}  // namespace de
