// What the kernels use of libgomp, made of std::thread: ThreadSanitizer understands these threads, and
// takes libgomp's own barriers for races. Link it in libgomp's place.
#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace {

constexpr int MOST = 3;  // threads of a team, whatever the machine has

struct Team {
  int size;
  std::mutex mutex;
  std::condition_variable all;
  int arrived = 0;
  long meetings = 0;
  // The loop that is being shared out, and how many threads have come to it.
  long next = 0, end = 0, step = 1, chunk = 1;
  int entered = 0;
};

thread_local Team* team = nullptr;
thread_local int number = 0;

}  // namespace

extern "C" {

int omp_get_max_threads() { return MOST; }
int omp_get_num_threads() { return team ? team->size : 1; }
int omp_get_thread_num() { return number; }

void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
  Team made;
  made.size = threads ? (int)threads : MOST;
  const auto run = [&](int i) {
    Team* const outer = team;
    const int before = number;
    team = &made;
    number = i;
    body(data);
    team = outer;
    number = before;
  };
  std::vector<std::thread> others;
  for (int i = 1; i < made.size; ++i) others.emplace_back(run, i);
  run(0);
  for (std::thread& other : others) other.join();
}

void GOMP_barrier() {
  std::unique_lock<std::mutex> lock(team->mutex);
  const long meeting = team->meetings;
  if (++team->arrived == team->size) {
    team->arrived = 0;
    ++team->meetings;
    team->all.notify_all();
  } else {
    team->all.wait(lock, [&] { return team->meetings != meeting; });
  }
}

bool GOMP_loop_nonmonotonic_dynamic_next(long* first, long* last) {
  const std::lock_guard<std::mutex> lock(team->mutex);
  if (team->next >= team->end) return false;
  *first = team->next;
  team->next = *last = std::min(team->end, team->next + team->chunk * team->step);
  return true;
}

// A parallel region of the kernels has one such loop.
bool GOMP_loop_nonmonotonic_dynamic_start(long start, long end, long step, long chunk, long* first,
                                          long* last) {
  {
    const std::lock_guard<std::mutex> lock(team->mutex);
    if (team->entered++ == 0) {
      team->next = start;
      team->end = end;
      team->step = step;
      team->chunk = chunk;
    }
  }
  return GOMP_loop_nonmonotonic_dynamic_next(first, last);
}

void GOMP_loop_end_nowait() {}

}  // extern "C"
