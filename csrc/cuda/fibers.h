// A block of a GPU on a CPU, for tests: every thread is a fiber, and what the threads of a warp or a
// block do together is done once all of them have arrived at it. Fragment layouts are those of the PTX
// ISA ("Matrix fragments for mma.m16n8k16", "ldmatrix"), written apart from the kernels' use of them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

namespace de {
namespace fibers {

// Runs body(thread, shared) for every thread of a block; shared memory begins as NaN.
void run(int threads, size_t shared, const std::function<void(int, char*)>& body);

// The same for all threads of a block.
void barrier();

// The same for the 32 threads of a warp.
float shuffle_xor(float x, int mask);
// depth 16 or 8; a has depth / 4 registers, b has depth / 8. c += a b.
void mma(float c[4], const uint32_t* a, const uint32_t* b, int depth, bool bf16);
void load_matrix_x4(uint32_t r[4], const void* row, bool transposed);

// A thread's own. What a copy writes is NaN until a wait for it.
void copy_async(void* to, const void* from, int bytes);  // 16 bytes are written, the rest zero
void commit();
void wait(int pending);

}  // namespace fibers
}  // namespace de
