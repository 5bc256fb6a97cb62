#include "fibers.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace de {
namespace fibers {
namespace {

constexpr int WARP = 32;
constexpr size_t STACK = 1 << 17, GRAIN = 16;  // bytes

enum What { BARRIER = 1, SHUFFLE, MMA, LOAD_MATRIX };

// What a thread brings to a collective operation.
struct Operand {
  int what;
  float x;
  uint32_t a[4], b[2];
  const char* row;
};

struct Copy {
  char* to;
  const char* from;
  int bytes;
};

// Threads that meet. Two places for operands: a thread may be at the next meeting while another
// still reads those of the last one.
struct Meeting {
  int size = 0, arrived = 0;
  long count = 0;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = false;
  Operand operand[2];
  std::vector<std::vector<Copy>> copies{1};  // by group; the last one is not committed
};

struct Block {
  ucontext_t scheduler;
  std::vector<Fiber> fibers;
  std::vector<Meeting> warps;
  Meeting all;
  const std::function<void(int, char*)>* body;
  char* shared;
  int thread = 0;
  long progress = 0;
};

Block* block = nullptr;

[[noreturn]] void fail(const char* message) {
  std::fprintf(stderr, "emulated block, thread %d: %s\n", block->thread, message);
  std::abort();
}

void yield() { swapcontext(&block->fibers[block->thread].context, &block->scheduler); }

// Returns which of the two places holds the operands of this meeting.
int meet(Meeting& m) {
  const long count = m.count;
  if (++m.arrived == m.size) {
    m.arrived = 0;
    ++m.count;
    ++block->progress;
  } else {
    while (m.count == count) yield();
  }
  return count & 1;
}

// Leaves this thread's operand and returns those of its warp.
struct Warp {
  int first, place;
  const Operand& operator[](int lane) const { return block->fibers[first + lane].operand[place]; }
};

Warp exchange(const Operand& mine) {
  const int thread = block->thread, first = thread / WARP * WARP;
  Meeting& m = block->warps[thread / WARP];
  block->fibers[thread].operand[m.count & 1] = mine;
  const Warp warp{first, meet(m)};
  for (int lane = 0; lane < WARP; ++lane)
    if (warp[lane].what != mine.what) fail("the threads of a warp do different things together");
  return warp;
}

void enter() {
  (*block->body)(block->thread, block->shared);
  block->fibers[block->thread].done = true;
  ++block->progress;
  while (true) yield();
}

float half_of(const uint32_t* registers, int i, bool bf16) {
  const unsigned short bits = registers[i / 2] >> (i % 2 * 16) & 0xFFFF;
  return bf16 ? __bfloat162float(__ushort_as_bfloat16(bits)) : __half2float(__ushort_as_half(bits));
}

}  // namespace

void run(int threads, size_t shared, const std::function<void(int, char*)>& body) {
  Block made;
  made.fibers.resize(threads);
  made.warps.resize(threads / WARP);
  for (Meeting& m : made.warps) m.size = WARP;
  made.all.size = threads;
  made.body = &body;
  std::vector<char> memory(shared + GRAIN, (char)0xFF);
  made.shared = memory.data() + GRAIN - reinterpret_cast<uintptr_t>(memory.data()) % GRAIN;
  block = &made;
  for (Fiber& f : made.fibers) {
    f.stack.reset(new char[STACK]);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
  }
  for (bool left = true; left;) {
    const long before = made.progress;
    left = false;
    for (int t = 0; t < threads; ++t) {
      if (made.fibers[t].done) continue;
      made.thread = t;
      swapcontext(&made.scheduler, &made.fibers[t].context);
      left |= !made.fibers[t].done;
    }
    if (left && made.progress == before) fail("all wait, and some for threads that have returned");
  }
  block = nullptr;
}

void barrier() { meet(block->all); }

float shuffle_xor(float x, int mask) {
  Operand mine{};
  mine.what = SHUFFLE, mine.x = x;
  return exchange(mine)[block->thread % WARP ^ mask].x;
}

// Element i of lane t, by the tables of the PTX ISA, with group = t / 4 and part = t % 4:
//   a   row group, plus 8 for i = 2, 3, 6, 7; column 2 part + i % 2, plus 8 from i = 4 on
//   b   row 2 part + i % 2, plus 8 from i = 2 on; column group
//   c   row group, plus 8 from i = 2 on; column 2 part + i % 2
void mma(float c[4], const uint32_t* a, const uint32_t* b, int depth, bool bf16) {
  Operand mine{};
  mine.what = MMA;
  std::memcpy(mine.a, a, depth / 4 * sizeof *a);
  std::memcpy(mine.b, b, depth / 8 * sizeof *b);
  const int lane = block->thread % WARP;
  const Warp warp = exchange(mine);
  const auto a_at = [&](int row, int k) {
    const int i = k % 2 + (row >= 8 ? 2 : 0) + (k >= 8 ? 4 : 0);
    return half_of(warp[row % 8 * 4 + k % 8 / 2].a, i, bf16);
  };
  const auto b_at = [&](int k, int column) {
    return half_of(warp[column * 4 + k % 8 / 2].b, k % 2 + (k >= 8 ? 2 : 0), bf16);
  };
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < depth; ++k) c[i] = std::fmaf(a_at(row, k), b_at(k, column), c[i]);
  }
}

// Lane 8 m + r points to row r of matrix m. Lane t gets of each matrix the elements 2 (t % 4) and the
// next of row t / 4; transposed, of column t / 4.
void load_matrix_x4(uint32_t r[4], const void* row, bool transposed) {
  Operand mine{};
  mine.what = LOAD_MATRIX, mine.row = static_cast<const char*>(row);
  if (reinterpret_cast<uintptr_t>(row) % 16) fail("a row of a matrix does not start at 16 bytes");
  const int lane = block->thread % WARP;
  const Warp warp = exchange(mine);
  for (int m = 0; m < 4; ++m) {
    uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {
      const int major = lane / 4, minor = lane % 4 * 2 + i;
      const char* from = warp[m * 8 + (transposed ? minor : major)].row;
      std::memcpy(&pair[i], from + 2 * (transposed ? major : minor), 2);
    }
    r[m] = pair[0] | (uint32_t)pair[1] << 16;
  }
}

void copy_async(void* to, const void* from, int bytes) {
  if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16)
    fail("a copy does not start at 16 bytes");
  std::memset(to, 0xFF, 16);
  block->fibers[block->thread].copies.back().push_back(
      {static_cast<char*>(to), static_cast<const char*>(from), bytes});
}

void commit() { block->fibers[block->thread].copies.emplace_back(); }

void wait(int pending) {
  auto& groups = block->fibers[block->thread].copies;
  while ((int)groups.size() - 1 > pending) {
    for (const Copy& c : groups.front()) {
      std::memset(c.to, 0, 16);
      std::memcpy(c.to, c.from, c.bytes);
    }
    groups.erase(groups.begin());
  }
}

}  // namespace fibers
}  // namespace de
