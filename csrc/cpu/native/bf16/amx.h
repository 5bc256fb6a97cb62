// The six AMX instructions of products in bf16: the processor's own, or an emulation that counts them. What
// includes this is written in Intel's names once.
#pragma once
#include <cstdint>
#include <cstring>

#include "counts.h"
#include "philox.h"

#if defined(__AMX_BF16__)
#include <immintrin.h>
#else

// <immintrin.h>, where another header brings it in, has them as macros.
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) de::emulated.configure(config)
#define _tile_release() de::emulated.release()
#define _tile_zero(tile) de::emulated.zero(tile)
#define _tile_loadd(tile, from, stride) de::emulated.load(tile, from, stride)
#define _tile_stored(tile, to, stride) de::emulated.store(tile, to, stride)
#define _tile_dpbf16ps(sums, a, b) de::emulated.dot(sums, a, b)

namespace de {
namespace {

// A thread's tile registers: eight of at most 16 rows of 64 bytes (Intel's Software Developer's Manual, volume 1,
// chapter 18). What the configuration does not cover is no part of a tile, and a tile that is used without one is
// a fault there and a crash here.
struct Emulated {
  unsigned char tile[8][16][64];
  int rows[8] = {}, bytes[8] = {};

  void configure(const void* config) {
    const auto* c = (const unsigned char*)config;
    for (int t = 0; t < 8; ++t) {
      uint16_t columns;
      std::memcpy(&columns, c + 16 + 2 * t, 2);
      bytes[t] = columns, rows[t] = c[48 + t];
    }
    std::memset(tile, 0, sizeof tile);
  }

  void release() { std::memset(rows, 0, sizeof rows); }

  void zero(int t) {
    ready(t);
    std::memset(tile[t], 0, sizeof tile[t]);
  }

  void load(int t, const void* from, int64_t stride) {
    ready(t);
    ++amx_counts.loads;
    for (int r = 0; r < rows[t]; ++r) std::memcpy(tile[t][r], (const char*)from + r * stride, (size_t)bytes[t]);
  }

  void store(int t, void* to, int64_t stride) {
    ready(t);
    ++amx_counts.stores;
    for (int r = 0; r < rows[t]; ++r) std::memcpy((char*)to + r * stride, tile[t][r], (size_t)bytes[t]);
  }

  // TDPBF16PS: sums of the even and of the odd terms on their own, then both, then what was there. Subnormal
  // inputs and results are 0; the instruction has sums in between that are subnormal as 0 too.
  void dot(int t, int a, int b) {
    ready(t), ready(a), ready(b);
    ++amx_counts.dots;
    const int pairs = bytes[a] / 4, columns = bytes[t] / 4;
    float right[16][2][16] = {};
    for (int k = 0; k < pairs; ++k)
      for (int n = 0; n < columns; ++n)
        for (int i = 0; i < 2; ++i) right[k][i][n] = half(tile[b][k], 2 * n + i);
    for (int m = 0; m < rows[t]; ++m) {
      float even[16] = {}, odd[16] = {}, sums[16];
      for (int k = 0; k < pairs; ++k) {
        const float first = half(tile[a][m], 2 * k), second = half(tile[a][m], 2 * k + 1);
        for (int n = 0; n < 16; ++n) even[n] = even[n] + first * right[k][0][n];
        for (int n = 0; n < 16; ++n) odd[n] = odd[n] + second * right[k][1][n];
      }
      std::memcpy(sums, tile[t][m], sizeof sums);
      for (int n = 0; n < 16; ++n) sums[n] = flushed(sums[n] + (even[n] + odd[n]));
      std::memcpy(tile[t][m], sums, (size_t)bytes[t]);
    }
  }

 private:
  void ready(int t) const {
    if (rows[t] == 0) __builtin_trap();
  }

  static float flushed(float x) { return (as_bits(x) & 0x7F800000u) == 0 ? 0.0f : x; }

  static float half(const unsigned char* row, int i) {
    uint16_t bits;
    std::memcpy(&bits, row + 2 * i, 2);
    return flushed(as_float((uint32_t)bits << 16));
  }
};

thread_local Emulated emulated;

}  // namespace
}  // namespace de
#endif
