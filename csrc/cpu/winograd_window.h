// The pixels that a tile reads and writes, as vectors of channels in either memory format.
#pragma once
#include "tile.h"
#include "winograd.h"

namespace de {
namespace {

// Lanes [lo, hi) of memory; the others are 0 and not read.
DE_INLINE Float load_lanes(const float* p, int lo, int hi) {
#if defined(__AVX512F__)
  return (Float)_mm512_maskz_loadu_ps((__mmask16)((1u << hi) - (1u << lo)), p);
#elif defined(__AVX2__)
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(lo), lane);
  const __m256i mask = _mm256_andnot_si256(below, _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), lane));
  return (Float)_mm256_maskload_ps(p, mask);
#else
  Float v = {};
  for (int i = lo; i < hi; ++i) v[i] = p[i];
  return v;
#endif
}

DE_INLINE void store_lanes(float* p, Float v, int n) {
  if (n == W) return store(p, v);
  if (n == 4) return std::memcpy(p, &v, 16), void();
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

// What of a span of `size` pixels from `first` on lies inside an image of `all` pixels.
struct Span {
  int lo, hi;

  Span(int64_t first, int64_t size, int64_t all)
      : lo((int)std::max<int64_t>(0, -first)), hi((int)std::min(size, all - first)) {}
  bool holds(int i) const { return lo <= i && i < hi; }
};

// A tile's place: its sample and its first output pixel.
struct Tile {
  int64_t b, row, column;

  Tile(const Conv3x3Params& p, int64_t number) {
    const int64_t wide = (p.width + p.tile - 1) / p.tile, high = (p.height + p.tile - 1) / p.tile;
    b = number / (wide * high);
    row = number / wide % high * p.tile;
    column = number % wide * p.tile;
  }
};

// The N x N pixels of x around a tile, zeros outside of the image.
template <int N>
struct Window {
  const View& x;
  const int64_t width;
  const Span rows, columns;
  const float* corner;  // of channel 0; may lie outside
  const float* pixel[N][N];

  Window(const Conv3x3Params& p, const Tile& t, const float* zeros)
      : x(p.x), width(p.width), rows(t.row - 1, N, p.height), columns(t.column - 1, N, p.width),
        corner((const float*)p.x.data + t.b * x.batch + ((t.row - 1) * width + t.column - 1) * x.pixel) {
    const float* image = (const float*)p.x.data + t.b * x.batch;
    const int shift = p.upsample == 2;
    int64_t column[N];
    for (int j = 0; j < N; ++j) column[j] = ((t.column - 1 + j) >> shift) * x.pixel;
    for (int i = 0; i < N; ++i) {
      const float* line = image + ((t.row - 1 + i) >> shift) * (width >> shift) * x.pixel;
      for (int j = 0; j < N; ++j)
        pixel[i][j] = rows.holds(i) && columns.holds(j) ? line + column[j] : zeros;
    }
  }

  // Channels [c, c + n) where they lie next to each other.
  DE_INLINE void read_last(int64_t c, int n, Float (&d)[N][N]) const {
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < N; ++j)
        d[i][j] = n == W ? load<Float>(pixel[i][j] + c) : load_lanes(pixel[i][j] + c, 0, n);
  }

  // The same where the pixels do.
  DE_INLINE void read_first(int64_t c, int n, Float (&d)[N][N]) const {
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < N; j += W) {
        Float t[W] = {};
        const int lo = std::min(std::max(columns.lo - j, 0), W), hi = std::min(columns.hi - j, W);
        if (rows.holds(i) && lo < hi) {
          const float* from = corner + c * x.channel + i * width + j;
          for (int r = 0; r < n; ++r) t[r] = load_lanes(from + r * x.channel, lo, hi);
          transpose(t);
        }
        for (int l = 0; l < W && j + l < N; ++l) d[i][j + l] = t[l];
      }
  }
};

// The M x M pixels of out that a tile writes: y + bias + residual.
template <int M>
struct Target {
  const View &out, &residual;
  const int64_t width, first, from;  // of the tile's first pixel, in out and in the residual
  const int rows, columns;

  Target(const Conv3x3Params& p, const Tile& t)
      : out(p.out), residual(p.residual), width(p.width),
        first(t.b * out.batch + (t.row * width + t.column) * out.pixel),
        from(t.b * residual.batch + (t.row * width + t.column) * residual.pixel),
        rows((int)std::min<int64_t>(M, p.height - t.row)),
        columns((int)std::min<int64_t>(M, p.width - t.column)) {}

  DE_INLINE void write_last(int64_t c, int n, const Float (&y)[M][M]) const {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) {
        const int64_t at = i * width + j;
        Float value = y[i][j];
        if (residual.data) {
          const float* r = (const float*)residual.data + from + at * residual.pixel + c;
          value += n == W ? load<Float>(r) : load_lanes(r, 0, n);
        }
        store_lanes((float*)out.data + first + at * out.pixel + c, value, n);
      }
  }

  DE_INLINE void write_first(int64_t c, int n, const Float (&y)[M][M]) const {
    for (int i = 0; i < rows; ++i) {
      Float t[W] = {};
      for (int j = 0; j < M; ++j) t[j] = y[i][j];
      transpose(t);
      for (int l = 0; l < n; ++l) {
        if (residual.data) {
          const int64_t at = from + (c + l) * residual.channel + i * width;
          t[l] += load_lanes((const float*)residual.data + at, 0, columns);
        }
        store_lanes((float*)out.data + first + (c + l) * out.channel + i * width, t[l], columns);
      }
    }
  }
};

}  // namespace
}  // namespace de
