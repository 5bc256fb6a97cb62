// The attention of 16 queries per warp on the tensor cores (diffusion_engine/ops/attention.py), with a
// running maximum and sum (Dao et al. 2022). Host and device: the tests run the same code on a CPU.
//
// Tiles of keys and values come by asynchronous copies, the next one while this one is used. Rows in
// shared memory are an odd number of 16 bytes apart, so that the eight rows of a matrix lie in
// different banks. STEPS is the head dim in 16s, rounded up to a size that is compiled: steps past
// the true dim are branched over, and an odd 8 takes the shorter mma, so nothing is padded.
#pragma once
#include <algorithm>
#include <stdexcept>
#include <string>

#include "layers.h"
#include "warp.cuh"

namespace de {

constexpr float LOG2E = 1.44269504088896341f;
constexpr int MAX_WARPS = 8;

template <int STEPS>
struct Tile {
  static constexpr bool LARGE = STEPS > 8;  // the query stays in shared memory, for want of registers
  static constexpr int KEYS = LARGE ? 32 : 64;
  static constexpr int STRIDE = 16 * STEPS + 8;  // elements
  static constexpr int STAGE = 2 * KEYS * STRIDE;  // keys, then values
  static constexpr int WARPS = LARGE ? 4 : MAX_WARPS;  // at most
  // A large query follows the stages; a small one passes through the second.
  static constexpr int SHARED = 2 * (2 * STAGE + (LARGE ? 16 * WARPS * STRIDE : 0));  // bytes
};

// What a launch divides: blocks of so many warps, a number of them to a head.
struct AttentionGrid {
  int32_t warps;
  int64_t blocks;
};

// By the sizes of one sample alone. Twice the warps halve the reads of keys and values.
template <int STEPS>
AttentionGrid attention_grid(const AttentionParams& p) {
  const int32_t warps = p.queries >= 1024 ? Tile<STEPS>::WARPS : std::min(4, Tile<STEPS>::WARPS);
  return AttentionGrid{warps, (p.queries + 16 * warps - 1) / (16 * warps)};
}

DE_HD const uint16_t* row_of(const Heads& x, int64_t b, int64_t h, int64_t token) {
  return static_cast<const uint16_t*>(x.data) + b * x.batch + h * x.head + token * x.token;
}

// One thread's share of copying rows [first, first + rows) into shared memory, zero past `count`.
template <int STEPS>
DE_HD void copy_rows(uint16_t* to, const Heads& x, int64_t b, int64_t h, int64_t first, int rows,
                     int64_t count, int dim, int thread, int threads) {
  for (int i = thread; i < rows * 2 * STEPS; i += threads) {
    const int row = i / (2 * STEPS), column = i % (2 * STEPS) * 8;
    if (column >= dim) continue;
    const bool there = first + row < count;
    copy_async(to + row * Tile<STEPS>::STRIDE + column,
               row_of(x, b, h, there ? first + row : 0) + column, there ? 16 : 0);
  }
}

// How many numbers of step s of the head dim there are: 16, 8 or none. Those of MIN steps are full.
template <int MIN>
DE_HD int depth_of(int s, int dim) {
  return s < MIN ? 16 : dim - 16 * s;
}

// Registers of a warp: the sums of its 16 queries, of which a thread has two.
template <int STEPS>
struct Sums {
  float out[2 * STEPS][4];
  float most[2], total[2];
};

// The scores of 16 queries and the keys of a tile; `sign` flips those of the query.
template <int STEPS, int MIN, bool BF16_>
DE_HD void scores_of(float score[][4], const uint32_t query[][4], const uint16_t* query_rows,
                     const uint16_t* keys, uint32_t sign, int dim, int lane) {
  using T = Tile<STEPS>;
  const uint16_t* at = keys + (lane % 8 + lane / 16 * 8) * T::STRIDE + lane / 8 % 2 * 8;
#pragma unroll
  for (int n = 0; n < T::KEYS / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) score[n][i] = 0.0f;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    const int depth = depth_of<MIN>(s, dim);
    if (depth <= 0) break;
    uint32_t a[4];
    if constexpr (T::LARGE) load_matrix_x4<false>(a, query_rows + s * 16);
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = (T::LARGE ? a[i] : query[s][i]) ^ sign;
#pragma unroll
    for (int n = 0; n < T::KEYS / 8; n += 2) {
      uint32_t b[4];
      load_matrix_x4<false>(b, at + n * 8 * T::STRIDE + s * 16);
      if (depth >= 16) {
        mma_16x8x16<BF16_>(score[n], a, b);
        mma_16x8x16<BF16_>(score[n + 1], a, b + 2);
      } else {
        mma_16x8x8<BF16_>(score[n], a, b);
        mma_16x8x8<BF16_>(score[n + 1], a, b + 2);
      }
    }
  }
}

DE_HD float most_of_four(float x) {
  x = fmaxf(x, shuffle_xor(x, 1));
  return fmaxf(x, shuffle_xor(x, 2));
}

// Turns the scores of a tile into weights, relative to the largest so far.
template <int STEPS>
DE_HD void weigh(float score[][4], Sums<STEPS>& sums, float scale, int keys, int lane) {
  constexpr int TILES = Tile<STEPS>::KEYS / 8;
  if (keys < Tile<STEPS>::KEYS) {
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (n * 8 + lane % 4 * 2 + i % 2 >= keys) score[n][i] = -INFINITY;
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {  // the two queries of a thread
    float most = sums.most[half];
#pragma unroll
    for (int n = 0; n < TILES; ++n)
      most = fmaxf(most, fmaxf(score[n][2 * half], score[n][2 * half + 1]));
    most = most_of_four(most);
    const float shift = -most * scale, fade = exp2_fast(fmaf(sums.most[half], scale, shift));
    sums.most[half] = most;
    float total = 0.0f;
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        score[n][i] = exp2_fast(fmaf(score[n][i], scale, shift));
        total += score[n][i];
      }
    sums.total[half] = fmaf(sums.total[half], fade, total);
#pragma unroll
    for (int n = 0; n < 2 * STEPS; ++n) {
      sums.out[n][2 * half] *= fade;
      sums.out[n][2 * half + 1] *= fade;
    }
  }
}

template <bool BF16_>
DE_HD uint32_t pack(float low, float high) {
  const int32_t dtype = BF16_ ? BF16 : F16;
  return narrow(low, dtype) | narrow(high, dtype) << 16;
}

// Adds the values of a tile. The sums of a thread in two tiles of scores are what it has to bring as
// the left operand of 16 keys.
template <int STEPS, int MIN, bool BF16_>
DE_HD void add_values(Sums<STEPS>& sums, const float weight[][4], const uint16_t* values, int dim,
                      int lane) {
  using T = Tile<STEPS>;
  const uint16_t* at = values + lane % 16 * T::STRIDE + lane / 16 * 8;
#pragma unroll
  for (int j = 0; j < T::KEYS / 16; ++j) {
    uint32_t a[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* pair = weight[2 * j + i / 2] + i % 2 * 2;
      a[i] = pack<BF16_>(pair[0], pair[1]);
    }
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
      const int width = depth_of<MIN>(s, dim);
      if (width <= 0) break;
      uint32_t b[4];
      load_matrix_x4<true>(b, at + j * 16 * T::STRIDE + s * 16);
      mma_16x8x16<BF16_>(sums.out[2 * s], a, b);
      if (width >= 16) mma_16x8x16<BF16_>(sums.out[2 * s + 1], a, b + 2);
    }
  }
}

template <int STEPS, bool BF16_>
DE_HD void write_out(const AttentionParams& p, Sums<STEPS>& sums, int64_t b, int64_t h,
                     int64_t first, int lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = sums.total[half];
    total += shuffle_xor(total, 1);
    total += shuffle_xor(total, 2);
    const float by = 1.0f / total;
    const int64_t token = first + lane / 4 + 8 * half;
    if (token >= p.queries) continue;
    uint16_t* out = const_cast<uint16_t*>(row_of(p.out, b, h, token)) + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < 2 * STEPS; ++n)
      if (n * 8 < p.dim)
        *reinterpret_cast<uint32_t*>(out + n * 8) =
            pack<BF16_>(sums.out[n][2 * half] * by, sums.out[n][2 * half + 1] * by);
  }
}

// Block `turn` of `grid.blocks` per head: 16 queries for each of its warps.
template <int STEPS, int MIN, bool BF16_>
DE_HD void attention_block(const AttentionParams& p, const AttentionGrid& grid, int64_t turn,
                           int thread, uint16_t* shared) {
  using T = Tile<STEPS>;
  int64_t head, block, b, h;
  divide(turn, grid.blocks, head, block);
  divide(head, p.heads, b, h);
  const int dim = (int)p.dim, threads = grid.warps * WARP, lane = thread % WARP;
  const int64_t first = block * 16 * grid.warps;
  const auto copy_tile = [&](int64_t from) {
    uint16_t* stage = shared + from / T::KEYS % 2 * T::STAGE;
    copy_rows<STEPS>(stage, p.k, b, h, from, T::KEYS, p.keys, dim, thread, threads);
    copy_rows<STEPS>(stage + T::STAGE / 2, p.v, b, h, from, T::KEYS, p.keys, dim, thread, threads);
    commit();
  };

  uint16_t* queries = shared + (T::LARGE ? 2 : 1) * T::STAGE;
  copy_rows<STEPS>(queries, p.q, b, h, first, 16 * grid.warps, p.queries, dim, thread, threads);
  commit();
  copy_tile(0);
  wait<1>();
  barrier();
  queries += (thread / WARP * 16 + lane % 16) * T::STRIDE + lane / 16 * 8;
  uint32_t query[T::LARGE ? 1 : STEPS][4];
  if constexpr (!T::LARGE) {
#pragma unroll
    for (int s = 0; s < STEPS; ++s) load_matrix_x4<false>(query[s], queries + s * 16);
    barrier();  // the second tile comes to where the queries were
  }

  // A sign in the query leaves the largest score the one of the largest product. The tiny number
  // stands for 0, which times the -inf of an absent key would be nan.
  const uint32_t sign = p.scale < 0.0f ? 0x80008000u : 0u;
  const float scale = fmaxf(fabsf(p.scale) * LOG2E, 1e-30f);
  Sums<STEPS> sums = {};
  sums.most[0] = sums.most[1] = -INFINITY;
#pragma unroll 1
  for (int64_t from = 0; from < p.keys; from += T::KEYS) {
    if (from + T::KEYS < p.keys) {
      copy_tile(from + T::KEYS);
      wait<1>();
    } else {
      wait<0>();
    }
    barrier();
    const uint16_t* stage = shared + from / T::KEYS % 2 * T::STAGE;
    const int64_t left = p.keys - from;
    float score[T::KEYS / 8][4];
    scores_of<STEPS, MIN, BF16_>(score, query, queries, stage, sign, dim, lane);
    weigh<STEPS>(score, sums, scale, left < T::KEYS ? (int)left : T::KEYS, lane);
    add_values<STEPS, MIN, BF16_>(sums, score, stage + T::STAGE / 2, dim, lane);
    barrier();
  }
  write_out<STEPS, BF16_>(p, sums, b, h, first + thread / WARP * 16, lane);
}

// Calls where.run<STEPS, MIN, BF16_>(p) for the kernel that takes this head dim: of MIN * 16 + 8 up to
// STEPS * 16.
template <int MIN, int STEPS, int... MORE, class Where>
void choose_steps(const Where& where, const AttentionParams& p) {
  if (p.dim <= 16 * STEPS) {
    if (p.dtype == BF16) return where.template run<STEPS, MIN, true>(p);
    return where.template run<STEPS, MIN, false>(p);
  }
  if constexpr (sizeof...(MORE) > 0) choose_steps<STEPS, MORE...>(where, p);
}

template <class Where>
void choose(const Where& where, const AttentionParams& p) {
  if (p.dim < 8 || p.dim > 256 || p.dim % 8)
    throw std::invalid_argument("attention takes a head dim that is a multiple of 8 up to 256, got " +
                                std::to_string(p.dim));
  if (p.dtype != BF16 && p.dtype != F16)
    throw std::invalid_argument("the CUDA attention takes bfloat16 and float16; cast q, k and v");
  if (p.batch < 1 || p.heads < 1 || p.queries < 1 || p.keys < 1)
    throw std::invalid_argument("attention of no elements");
  for (const Heads* x : {&p.q, &p.k, &p.v, &p.out})
    if (!x->data || reinterpret_cast<uintptr_t>(x->data) % 16 || x->batch % 8 || x->head % 8 ||
        x->token % 8)
      throw std::invalid_argument("attention needs rows that start at multiples of 16 bytes; make "
                                  "q, k, v and out contiguous");
  choose_steps<0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16>(where, p);
}

}  // namespace de
