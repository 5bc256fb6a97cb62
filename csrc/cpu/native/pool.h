// Threads of a recorded network's own: between the tasks of a run they spin, for a bounded time, and sleep then.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>

#include "task.h"

namespace de {

struct Team;

// The caller of a run is the first of the threads. Several programs may share a pool, and one run at a time
// has it: another thread's waits, because programs may share memory and there are no more cores.
class Pool {
 public:
  explicit Pool(int64_t threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // The pool for the time of a run; a run within a run of the same thread is let through.
  class Hold {
   public:
    explicit Hold(Pool& pool);
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    // Returns after the last item, throws what the first failed one threw. True where other threads were asked.
    bool run(const Task& task);

   private:
    Team& team_;
    std::unique_lock<std::recursive_mutex> lock_;
  };

  int64_t threads() const { return threads_; }
  // Scratch of so many floats for every thread from now on. Not within a run.
  void reserve(int64_t floats);
  // Microseconds without news until a worker sleeps, within a run and after one.
  void spin(int64_t held, int64_t idle);

 private:
  Team& team();

  const int64_t threads_;
  std::atomic<Team*> team_{nullptr};
  std::atomic<int64_t> floats_{0}, held_us_, idle_us_;
};

}  // namespace de
