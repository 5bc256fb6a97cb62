// One work item of attention in bf16: see attend_bf16.h. As in float32 the vectors run along the queries, so
// that maxima and sums over keys are plain vector operations: scores are K Q^T and sums V^T P^T, whose right
// matrices are panels of queries.
#pragma once
#include <algorithm>

#include "../../attention_kernel.h"
#include "../lanes.h"
#include "attend_bf16.h"
#include "product.h"

namespace de {
namespace {

// n floats of a row, at most W of them, and zeros.
DE_INLINE Float floats_of(const float* p, int64_t n) {
  if (n >= W) return load<Float>(p);
  return n > 0 ? load_first(p, n) : Float{};
}

// Pairs of bf16 are moved as one number: two vectors' lanes, the first in the low halves, ...
DE_INLINE Float joined(Float low, Float high) {
  const Word first = __builtin_convertvector(narrow(low), Word);
  return (Float)(first | __builtin_convertvector(narrow(high), Word) << 16);
}

// ... and n floats of a row, at most 2 W of them, and zeros.
template <size_t... I>
DE_INLINE Float paired(const float* p, int64_t n, std::index_sequence<I...>) {
  const Half first = narrow(floats_of(p, n)), second = narrow(floats_of(p + W, n - W));
  return (Float)__builtin_shufflevector(first, second, (int)I...);
}

DE_INLINE Float paired(const float* p, int64_t n) { return paired(p, n, std::make_index_sequence<2 * W>()); }

// The largest of W queries' scores, and of `top`.
DE_INLINE Float largest(const float* scores, int64_t keys, Float top) {
  constexpr int64_t AT_ONCE = 4, ROW = HalfAttendBlocks::UNIT;
  Float most[AT_ONCE] = {top, top, top, top};
  for (; keys >= AT_ONCE; keys -= AT_ONCE, scores += AT_ONCE * ROW)
    for (int64_t i = 0; i < AT_ONCE; ++i) most[i] = at_least(load<Float>(scores + i * ROW), most[i]);
  for (; keys > 0; --keys, scores += ROW) most[0] = at_least(load<Float>(scores), most[0]);
  return at_least(at_least(most[0], most[1]), at_least(most[2], most[3]));
}

// scores becomes scale scores + mask.
DE_INLINE void add_mask(float scale, const float* mask, int64_t keys, float* scores) {
  for (int64_t i = 0; i < keys * HalfAttendBlocks::UNIT; i += W)
    store(scores + i, multiply_add(load<Float>(scores + i), splat(scale), load<Float>(mask + i)));
}

// exp(scale (scores - top)) of W queries, rounded to bf16, in pairs of keys; keys up to `padded` weigh 0.
// Returns their sums over the keys. They are sums of what was rounded: a result is then a mean of values, and
// what rounding does to all weights alike, or to those of like values, is divided out again. Sums of what was
// not rounded would leave an error of sum e_j p_j v_j, these leave sum e_j p_j (v_j - out).
template <bool MASKED>
DE_INLINE Float weigh(Exponential power, const float* scores, int64_t keys, int64_t padded, Float top,
                      uint16_t* weights) {
  constexpr int64_t ROW = HalfAttendBlocks::UNIT;
  Float even = {}, odd = {};
  const auto weight = [&](int64_t i) {
    const Float score = load<Float>(scores + i * ROW), out = splat(-std::numeric_limits<float>::infinity());
    const Float w = power(score - top);
    return MASKED ? (score == out ? Float{} : w) : w;
  };
  const auto keep = [&](int64_t i, Float pair) {
    store(weights + i * ROW, pair);
    even += (Float)((Word)pair << 16);
    odd += (Float)((Word)pair & 0xFFFF0000u);
  };
  int64_t i = 0;
  for (; i + 2 <= keys; i += 2) keep(i, joined(weight(i), weight(i + 1)));
  if (i < keys) keep(i, joined(weight(i), Float{})), i += 2;
  for (; i < padded; i += 2) store(weights + i * ROW, Float{});
  return even + odd;
}

struct HalfAttend {
  static constexpr int64_t UNIT = HalfAttendBlocks::UNIT;

  const AttendParams& p;
  const HalfAttendBlocks& blocks;
  const int64_t parts, b, head, first, rows;  // the item's queries
  float *const sums, *const top, *const total, *const scores, *const masks;
  uint16_t *const q, *const weights, *const k, *const v;

  HalfAttend(const AttendParams& p, const HalfAttendBlocks& blocks, int64_t item, float* scratch)
      : p(p), blocks(blocks), parts((p.queries + blocks.queries - 1) / blocks.queries),
        b(item / parts / p.heads), head(item / parts % p.heads), first(item % parts * blocks.queries),
        rows(std::min(blocks.queries, p.queries - first)), sums(scratch), top(sums + blocks.queries * blocks.dim),
        total(top + blocks.queries), scores(total + blocks.queries), masks(scores + blocks.keys * UNIT),
        q((uint16_t*)(masks + (p.mask.data ? blocks.keys * UNIT : 0))),
        weights(q + blocks.queries * blocks.dim), k(weights + blocks.keys * UNIT),
        v(k + blocks.keys * blocks.key_row()) {}

  Tokens tokens(const Heads& h, int64_t token) const { return Tokens(h, b, head, token, sizeof(float)); }

  static const float* row(const Tokens& t, int64_t i) { return (const float*)(t.data + i * t.row); }

  // Panels [pair of dims][query][2], of the sign that makes the largest score the heaviest. Dims and queries
  // beyond the last are 0.
  void pack_queries(bool negative) {
    const Tokens from = tokens(p.q, first);
    const Word signs = Word{} + (negative ? 0x80008000u : 0u);
    for (int64_t i = 0; i < rows; i += UNIT)
      for (int64_t d = 0; d < blocks.dim; d += 2 * W)
        for (int64_t r = 0; r < UNIT; r += W) {
          Float t[W];
          for (int64_t j = 0; j < W; ++j) {
            t[j] = i + r + j < rows ? paired(row(from, i + r + j) + d, p.dim - d) : Float{};
            t[j] = (Float)((Word)t[j] ^ signs);
          }
          transpose(t);
          uint16_t* to = q + i * blocks.dim + d * UNIT + 2 * r;
          for (int64_t j = 0; j < W; ++j) store(to + j * 2 * UNIT, t[j]);
        }
  }

  // Rows [key][dim].
  void pack_keys(const Tokens& from, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t d = 0; d < blocks.dim; d += W)
        store(k + i * blocks.key_row() + d, narrow(floats_of(row(from, i) + d, p.dim - d)));
  }

  // Rows [dim][key]. Keys up to `padded` are 0.
  void pack_values(const Tokens& from, int64_t count, int64_t padded) {
    for (int64_t i = 0; i < padded; i += 2 * W)
      for (int64_t d = 0; d < p.dim; d += W) {
        const auto values = [&](int64_t key) {
          return key < count ? floats_of(row(from, key) + d, p.dim - d) : Float{};
        };
        Float t[W];
        for (int64_t j = 0; j < W; ++j) t[j] = joined(values(i + 2 * j), values(i + 2 * j + 1));
        transpose(t);
        for (int64_t j = 0; j < W; ++j) store(v + (d + j) * blocks.value_row() + i, t[j]);
      }
  }

  // rows of a [n][terms] times a panel of queries.
  static void multiply(const uint16_t* a, int64_t row, int64_t n, int64_t terms, const uint16_t* panel, float* to,
                       bool add) {
    constexpr int64_t BEGIN = 0;
    const int64_t blocks = HalfAttendBlocks::round_up(terms) / UNIT;
    const Pieces all = {&BEGIN, 1, blocks, blocks * UNIT / 2 - (terms + 1) / 2};
    for (int64_t i = 0; i < n; i += HALF_ROWS)
      product(a + i * row, row, all, panel, std::min(HALF_ROWS, n - i), to + i * UNIT, UNIT, add);
  }

  // A panel, whose first query is the item's `at`, meets a block of keys.
  template <bool MASKED>
  void meet(Exponential power, int64_t at, int64_t key, int64_t count) {
    const int64_t number = std::min(UNIT, rows - at), padded = HalfAttendBlocks::round_up(count);
    multiply(k, blocks.key_row(), count, p.dim, q + at * blocks.dim, scores, false);
    if (MASKED) {
      const Heads mask = {(void*)(p.mask.data + key), p.mask.batch, p.mask.head, p.mask.query};
      pack_panels<F32, UNIT>(tokens(mask, first + at), number, count, 1.0f, masks);
      add_mask(p.scale, masks, count, scores);
    }
    float* to = sums + at * blocks.dim;
    for (int64_t i = 0; i < number; i += W) {
      const Float before = load<Float>(top + at + i), now = largest(scores + i, count, before);
      const Float sum = weigh<MASKED>(power, scores + i, count, padded, now, weights + 2 * i);
      store(top + at + i, now);
      if (key == 0) {
        store(total + at + i, sum);
        continue;
      }
      const Float decay = power(before - now);
      store(total + at + i, multiply_add(load<Float>(total + at + i), decay, sum));
      for (int64_t d = 0; d < p.dim; ++d) store(to + d * UNIT + i, load<Float>(to + d * UNIT + i) * decay);
    }
    multiply(v, blocks.value_row(), p.dim, count, weights, to, key > 0);
  }

  template <bool MASKED>
  void run() {
    const Tiles tiles;
    const Exponential power(MASKED ? 1.0f : std::fabs(p.scale));
    pack_queries(!MASKED && p.scale < 0);
    for (int64_t i = 0; i < rows; i += W) store(top + i, splat(std::numeric_limits<float>::lowest()));
    evenly(HalfAttendBlocks::round_up(p.keys) / UNIT, blocks.keys / UNIT, [&](int64_t unit, int64_t units) {
      const int64_t key = unit * UNIT, count = std::min(units * UNIT, p.keys - key);
      pack_keys(tokens(p.k, key), count);
      pack_values(tokens(p.v, key), count, units * UNIT);
      for (int64_t i = 0; i < rows; i += UNIT) meet<MASKED>(power, i, key, count);
    });
    for (int64_t i = 0; i < rows; i += UNIT)
      unpack_panels<F32, UNIT>(sums + i * blocks.dim, total + i, std::min(UNIT, rows - i), p.dim,
                                  tokens(p.out, first + i));
  }
};

inline void attend_bf16(const AttendParams& p, const HalfAttendBlocks& blocks, int64_t item, float* scratch) {
  HalfAttend work(p, blocks, item, scratch);
  p.mask.data ? work.run<true>() : work.run<false>();
}

}  // namespace
}  // namespace de
