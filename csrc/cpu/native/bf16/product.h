// A block of a product in bf16: rows times a packed panel, sums in float32. Three builds of it: with AMX, with
// AMX emulated, and with the dot products of AVX-512.
#pragma once
#include "../../tile.h"
#include "kernels.h"

#if !defined(__AVX512BF16__) || defined(__AMX_BF16__)
#define DE_TILES
#include "amx.h"
#endif

namespace de {
namespace {

#ifdef DE_TILES

// What a thread has its tiles configured as while it lives: all eight of 16 rows of 64 bytes.
struct Tiles {
  Tiles() {
    alignas(64) static constexpr unsigned char CONFIG[64] = {
        1, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,  64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0,
        0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,  16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0};
    _tile_loadconfig(CONFIG);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
};

// GCC's tile intrinsics do not tell it that they read and write memory.
DE_INLINE void settle_memory() { __asm__ volatile("" ::: "memory"); }

// A weight that is read for the first time comes from memory more slowly than tiles multiply, and the processor's
// own prefetching ends with every page.
DE_INLINE const uint16_t* ask_ahead(const uint16_t* from, int64_t lines) {
  for (const uint16_t* end = from + lines * 32; from < end; from += 32) __builtin_prefetch(from, 0, 2);
  return from;
}

// 32 rows: tiles 0 to 3 hold sums, 4 and 5 rows, 6 and 7 the panel's columns. Each tile that is loaded is used
// twice.
inline void product_square(const uint16_t* a, int64_t row, const Pieces& pieces, const uint16_t* panel, float* to,
                           int64_t to_row, bool add) {
  const int64_t from_line = row * 2, to_line = to_row * 4, panel_line = HALF_COLUMNS * 4;
  if (add) {
    _tile_loadd(0, to, to_line);
    _tile_loadd(1, to + 16, to_line);
    _tile_loadd(2, to + 16 * to_row, to_line);
    _tile_loadd(3, to + 16 * to_row + 16, to_line);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const uint16_t* ahead = pieces.ahead;
  for (int64_t i = 0; i < pieces.count; ++i) {
    const uint16_t* from = a + pieces.offsets[i];
    for (int64_t k = 0; k < pieces.blocks; ++k, from += HALF_TERMS, panel += HALF_TERMS * HALF_COLUMNS) {
      ahead = ask_ahead(ahead, pieces.lines);
      _tile_loadd(6, panel, panel_line);
      _tile_loadd(4, from, from_line);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, panel + 32, panel_line);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, from + 16 * row, from_line);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, to, to_line);
  _tile_stored(1, to + 16, to_line);
  _tile_stored(2, to + 16 * to_row, to_line);
  _tile_stored(3, to + 16 * to_row + 16, to_line);
}

// 16 rows, whose sums have the order of 32's.
inline void product_flat(const uint16_t* a, int64_t row, const Pieces& pieces, const uint16_t* panel, float* to,
                         int64_t to_row, bool add) {
  const int64_t from_line = row * 2, to_line = to_row * 4, panel_line = HALF_COLUMNS * 4;
  if (add) {
    _tile_loadd(0, to, to_line);
    _tile_loadd(1, to + 16, to_line);
  } else {
    _tile_zero(0);
    _tile_zero(1);
  }
  const uint16_t* ahead = pieces.ahead;
  for (int64_t i = 0; i < pieces.count; ++i) {
    const uint16_t* from = a + pieces.offsets[i];
    for (int64_t k = 0; k < pieces.blocks; ++k, from += HALF_TERMS, panel += HALF_TERMS * HALF_COLUMNS) {
      ahead = ask_ahead(ahead, pieces.lines);
      _tile_loadd(4, from, from_line);
      _tile_loadd(6, panel, panel_line);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, panel + 32, panel_line);
      _tile_dpbf16ps(1, 4, 7);
    }
  }
  _tile_stored(0, to, to_line);
  _tile_stored(1, to + 16, to_line);
}

// to[r][n] = (add: +) rows of `a` times a panel, r < rows <= 32 and n < 32. `to` has room for 32 rows, and rows of
// `a` are read to the next multiple of 16.
inline void product(const uint16_t* a, int64_t row, const Pieces& pieces, const uint16_t* panel, int64_t rows,
                    float* to, int64_t to_row, bool add) {
  settle_memory();
  (rows > 16 ? product_square : product_flat)(a, row, pieces, panel, to, to_row, add);
  settle_memory();
}

#else

struct Tiles {
  Tiles() {}  // nothing to configure
};

// R rows and two vectors of columns: 28 of 32 registers hold sums.
template <int R>
DE_INLINE void product_rows(const uint16_t* a, int64_t row, const Pieces& pieces, const uint16_t* panel, float* to,
                            int64_t to_row, bool add) {
  __m512 sum[R][2];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < 2; ++v) sum[r][v] = add ? _mm512_loadu_ps(to + r * to_row + 16 * v) : _mm512_setzero_ps();
  for (int64_t i = 0; i < pieces.count; ++i) {
    const uint16_t *from = a + pieces.offsets[i], *end = from + pieces.blocks * HALF_TERMS - 2 * pieces.empty;
    for (; from < end; from += 2, panel += 2 * HALF_COLUMNS) {
      const auto first = (__m512bh)_mm512_loadu_si512(panel), second = (__m512bh)_mm512_loadu_si512(panel + 32);
      for (int r = 0; r < R; ++r) {
        const auto terms = (__m512bh)_mm512_set1_epi32(load<int32_t>(from + r * row));
        sum[r][0] = _mm512_dpbf16_ps(sum[r][0], terms, first);
        sum[r][1] = _mm512_dpbf16_ps(sum[r][1], terms, second);
      }
    }
    panel += 2 * HALF_COLUMNS * pieces.empty;
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < 2; ++v) _mm512_storeu_ps(to + r * to_row + 16 * v, sum[r][v]);
}

inline void product(const uint16_t* a, int64_t row, const Pieces& pieces, const uint16_t* panel, int64_t rows,
                    float* to, int64_t to_row, bool add) {
  constexpr int MOST = 14;
  evenly(rows, MOST, [&](int64_t first, int64_t count) {
    constant<MOST>(count, [&](auto tall) {
      product_rows<tall>(a + first * row, row, pieces, panel, to + first * to_row, to_row, add);
    });
  });
}

#endif

// bf16 to nearest even; NaN stays one.
DE_INLINE Half narrow(Float x) {
#ifdef __AVX512BF16__
  return (Half)_mm512_cvtneps_pbh((__m512)x);
#else
  return to_bfloat(x);
#endif
}

}  // namespace
}  // namespace de
