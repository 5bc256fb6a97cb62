#include "pool.h"

#include <algorithm>

#include "team.h"

namespace de {

// Between two rows of a sampler lie some 100. Of 5 to 200 and 50 to 500, on a machine with more processes than
// cores, fewer than 50 made calls of a small network up to a third longer, and more gained nothing.
constexpr int64_t HELD_US = 50, IDLE_US = 200;

Pool::Pool(int64_t threads)
    : threads_(std::max<int64_t>(1, threads)), held_us_(HELD_US), idle_us_(IDLE_US) {}

// A child of fork has the parent's memory and none of its threads, and its lock may have been held by one:
// it starts a team of its own and leaves the other's memory alone.
Team& Pool::team() {
  Team* seen = team_.load(std::memory_order_acquire);
  if (seen && seen->forks == forks_so_far()) return *seen;
  auto fresh = std::make_unique<Team>(threads_, floats_.load(), held_us_.load(), idle_us_.load());
  if (team_.compare_exchange_strong(seen, fresh.get())) return *fresh.release();
  return *seen;
}

Pool::~Pool() {
  Team* last = team_.load();
  if (last && last->forks == forks_so_far()) delete last;
}

void Pool::reserve(int64_t floats) {
  int64_t seen = floats_.load();
  while (seen < floats && !floats_.compare_exchange_weak(seen, floats)) {
  }
  if (seen < floats) team().reserve(floats);
}

void Pool::spin(int64_t held, int64_t idle) {
  held_us_ = held;
  idle_us_ = idle;
  team().held_us = held;
  team().idle_us = idle;
}

Pool::Hold::Hold(Pool& pool) : team_(pool.team()), lock_(team_.lock) { team_.hold(); }

Pool::Hold::~Hold() { team_.release(); }

bool Pool::Hold::run(const Task& task) { return team_.run(task); }

}  // namespace de
