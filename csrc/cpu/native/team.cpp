#include "team.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <limits>
#include <utility>

#ifdef DE_X86
#include <xmmintrin.h>
#endif

namespace de {

// Another thread is worth its part in a task, about a microsecond, from so much work on.
constexpr int64_t WORTH = 32768;
// Looks between two readings of the clock.
constexpr int LOOKS = 32;
// A worker that has lost its core in the middle of an item gets another one only when somebody sleeps. So
// after a wait that no item explains, LATE longer than the caller's own part of the task, nobody spins for
// longer than BUSY_US, and that for a multiple of the wait.
constexpr int64_t LATE = 200'000, BUSY_US = 2, BUSY_TIMES = 16, BUSY_MOST = 100'000'000;

static void futex_wait(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, (uint32_t*)&word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

static void futex_wake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, (uint32_t*)&word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

static void pause() {
#ifdef DE_X86
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

static uint32_t rounding() {
#ifdef DE_X86
  return _mm_getcsr() & ~0x3Fu;  // without the flags of what happened
#else
  return 0;
#endif
}

static void set_rounding(uint32_t mode) {
#ifdef DE_X86
  if (mode != rounding()) _mm_setcsr(mode);
#endif
}

static int64_t now() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

// False where nothing came in time. How long that is is looked up again and again: a run may end meanwhile, and
// another one begin after some 50 microseconds.
template <class Came>
bool Team::spin(Came came) {
  const int64_t start = now();
  const auto end = [&] {
    const int64_t us = (held.load(std::memory_order_relaxed) ? held_us : idle_us).load(std::memory_order_relaxed);
    return start + 1000 * (start < busy_until.load(std::memory_order_relaxed) ? std::min(us, BUSY_US) : us);
  };
  do {
    for (int i = 0; i < LOOKS; ++i) {
      if (came()) return true;
      pause();
    }
  } while (now() < end());
  return false;
}

static std::atomic<int> forks_seen{0};

int forks_so_far() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { ++forks_seen; });
  (void)registered;
  return forks_seen.load(std::memory_order_relaxed);
}

int64_t Share::take(bool own) {
  uint64_t seen = left.load(std::memory_order_relaxed);
  while (seen >> 32 < (seen & 0xFFFFFFFFu)) {
    const uint64_t rest = own ? seen + (1ull << 32) : seen - 1;
    if (left.compare_exchange_weak(seen, rest, std::memory_order_acquire, std::memory_order_relaxed))
      return own ? (int64_t)(seen >> 32) : (int64_t)(rest & 0xFFFFFFFFu);
  }
  return -1;
}

// Not-a-number until it is written, so that a task which reads what it did not write shows.
void Scratch::grow(int64_t wanted) {
  constexpr int64_t LINE = 64 / sizeof(float);
  if (wanted <= floats) return;
  kept.reset(new float[wanted + LINE]);
  std::fill_n(kept.get(), wanted + LINE, std::numeric_limits<float>::quiet_NaN());
  data = kept.get() + (LINE - (uintptr_t)kept.get() / sizeof(float) % LINE) % LINE;
  floats = wanted;
}

Team::Team(int64_t threads, int64_t floats, int64_t held_us, int64_t idle_us)
    : held_us(held_us), idle_us(idle_us), forks(forks_so_far()), shares(threads), scratch(threads) {
  reserve(floats);
  // Python's signals are for its own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (int64_t me = 1; me < threads; ++me) workers.emplace_back(&Team::serve, this, me);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Team::~Team() {
  stop = true;
  ++signal;
  futex_wake(signal);
  for (std::thread& worker : workers) worker.join();
}

void Team::reserve(int64_t floats) {
  const std::lock_guard<std::recursive_mutex> guard(lock);
  for (Scratch& own : scratch) own.grow(floats);
}

void Team::hold() {
  held.store(true, std::memory_order_relaxed);
  wake();
}

void Team::item(int64_t me, int64_t index) {
  try {
    current.task->run(index, scratch[me].data);
  } catch (...) {
    if (!failed.exchange(true)) error = std::current_exception();
  }
}

// All that is left of the task, one's own share first. Returns the number of items.
int64_t Team::help(int64_t me) {
  const int64_t threads = (int64_t)shares.size();
  int64_t count = 0;
  for (int64_t i = 0; i < threads; ++i) {
    Share& share = shares[(me + i) % threads];
    for (int64_t index; (index = share.take(i == 0)) >= 0; ++count) {
      if (count == 0) set_rounding(current.rounding);
      item(me, index);
    }
  }
  return count;
}

void Team::serve(int64_t me) {
  while (await(me)) {
    const int64_t count = help(me);
    if (count == 0) continue;
    done.fetch_add((uint32_t)count);
    if (caller_sleeps.load() && caller_sleeps.exchange(0)) futex_wake(caller_sleeps);
  }
}

// Until there are items in one's own share; false at the end of the team.
bool Team::await(int64_t me) {
  const auto came = [&] { return shares[me].any() || stop.load(std::memory_order_relaxed); };
  while (!spin(came)) sleep(me);
  return !stop;
}

// The order on both sides, own word written, then the other's read, leaves no wake-up unseen.
void Team::sleep(int64_t me) {
  const uint32_t seen = signal.load();
  sleepers.fetch_add(1);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!shares[me].any() && !stop.load()) futex_wait(signal, seen);
}

// One call of the system for each sleep, however many tasks pass before the sleeper runs.
void Team::wake() {
  if (sleepers.load(std::memory_order_relaxed) == 0 || sleepers.exchange(0) == 0) return;
  signal.fetch_add(1);
  futex_wake(signal);
}

void Team::publish(const Task& task) {
  const int64_t threads = (int64_t)shares.size();
  current.task = &task;
  current.rounding = rounding();
  done.store(0, std::memory_order_relaxed);
  for (int64_t i = threads - 1; i >= 0; --i)
    shares[i].set(task.items * i / threads, task.items * (i + 1) / threads);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  wake();
}

// Until the workers have done so many items of a task that began at `start`.
void Team::join(int64_t others, int64_t start) {
  const auto all = [&] { return done.load(std::memory_order_acquire) == (uint32_t)others; };
  if (all()) return;
  const int64_t own = now() - start;
  while (!spin(all)) {
    caller_sleeps.store(1);
    if (done.load() != (uint32_t)others) futex_wait(caller_sleeps, 1);
    caller_sleeps.store(0);
  }
  const int64_t end = now(), waited = end - start - own;
  if (waited > own + LATE) busy_until.store(end + std::min(BUSY_TIMES * waited, BUSY_MOST));
}

bool Team::run(const Task& task) {
  if (shares.size() == 1 || task.items <= 1 || task.work < WORTH) {
    for (int64_t index = 0; index < task.items; ++index) task.run(index, scratch[0].data);
    return false;
  }
  const int64_t start = now();
  publish(task);
  join(task.items - help(0), start);
  if (failed.load(std::memory_order_relaxed)) {
    failed.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error, nullptr));
  }
  return true;
}

}  // namespace de
