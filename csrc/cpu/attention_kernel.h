// One work item of attention: see ops/attention.py for the definition and tile.h for the layout.
#pragma once
#include <limits>

#include "attention.h"
#include "tile.h"

namespace de {
namespace {

// exp(scale x) for scale >= 0, x <= 0. Scores are scaled here, after the maximum is subtracted: scaled
// queries would round every score by its own size, this only the differences that still count.
struct Exponential {
  Float factor, least;

  explicit Exponential(float scale)
      : factor(splat(scale * 1.44269504f)),
        least(at_least(-100.0f / factor, splat(std::numeric_limits<float>::lowest()))) {}

  // 2^n 2^f: a polynomial of degree 5 on [-1/2, 1/2], within 1.1e-7 before rounding, and exactly 1 at
  // 0: the sums of earlier blocks are multiplied by that with every block. Below 2^-100 it stays
  // there: products with smaller weights would be subnormal, which is slow, and add nothing to a total
  // that is 1 at least. NaN stays.
  DE_INLINE Float operator()(Float x) const {
    const Float magic = splat(12583039.0f);  // 1.5 * 2^23 + 127: its sum's low bits are n + 127
    const Float inside = at_least(x, least), shifted = multiply_add(inside, factor, magic);
    const Float f = multiply_add(inside, factor, magic - shifted);
    Float p = splat(1.326472721e-3f);
    p = multiply_add(p, f, splat(9.671512813e-3f));
    p = multiply_add(p, f, splat(5.550733745e-2f));
    p = multiply_add(p, f, splat(2.402224208e-1f));
    p = multiply_add(p, f, splat(6.931469776e-1f));
    p = multiply_add(p, f, splat(1.0f));
    return p * (Float)((Int)shifted << 23);
  }
};

// The rows of one head.
struct Tokens {
  char* data;
  int64_t row;  // bytes

  Tokens(const Heads& h, int64_t b, int64_t head, int64_t first, int64_t size)
      : data((char*)h.data + (b * h.batch + head * h.head + first * h.token) * size),
        row(h.token * size) {}
};

// Columns of W rows at a time, times a sign: panels [dim][PANEL]. Lanes without a query are 0.
template <int32_t dtype, int64_t PANEL = de::PANEL>
void pack_panels(const Tokens& from, int64_t rows, int64_t dim, float sign, float* panels) {
  const int64_t size = size_of(dtype);
  for (int64_t first = 0; first < rows; first += W) {
    float* to = panels + first / PANEL * PANEL * dim + first % PANEL;
    const char* at = from.data + first * from.row;
    const bool whole = rows - first >= W;
    const int64_t vectors = whole ? dim / W * W : 0;
    for (int64_t d = 0; d < vectors; d += W) {
      Float t[W];
      for (int i = 0; i < W; ++i) t[i] = load_as<dtype>(at + i * from.row + d * size) * sign;
      transpose(t);
      for (int i = 0; i < W; ++i) store(to + (d + i) * PANEL, t[i]);
    }
    for (int64_t d = vectors; d < dim; ++d)
      for (int64_t i = 0; i < W; ++i)
        to[d * PANEL + i] =
            first + i < rows ? element(at + i * from.row + d * size, dtype) * sign : 0.0f;
  }
}

// And back, each row divided by its total; a row without any key becomes 0.
template <int32_t dtype, int64_t PANEL = de::PANEL>
void unpack_panels(const float* panels, const float* totals, int64_t rows, int64_t dim, const Tokens& to) {
  const int64_t size = size_of(dtype);
  for (int64_t first = 0; first < rows; first += W) {
    const float* from = panels + first / PANEL * PANEL * dim + first % PANEL;
    char* at = to.data + first * to.row;
    const int64_t count = rows - first < W ? rows - first : W;
    const int64_t vectors = count == W ? dim / W * W : 0;
    const Float total = load<Float>(totals + first);
    const Float inverse = total == Float{} ? Float{} : 1.0f / total;
    for (int64_t d = 0; d < vectors; d += W) {
      Float t[W];
      for (int i = 0; i < W; ++i) t[i] = load<Float>(from + (d + i) * PANEL) * inverse;
      transpose(t);
      for (int i = 0; i < W; ++i) store_as<dtype>(at + i * to.row + d * size, t[i]);
    }
    for (int64_t d = vectors; d < dim; ++d)
      for (int64_t i = 0; i < count; ++i)
        set_element(at + i * to.row + d * size, dtype, from[d * PANEL + i] * inverse[i]);
  }
}

// Keys or values as floats in rows that do not share the cache's sets.
template <int32_t dtype>
void pack_rows(const Tokens& from, int64_t rows, int64_t dim, int64_t row, float* to) {
  const int64_t size = size_of(dtype), vectors = dim / W * W;
  for (int64_t i = 0; i < rows; ++i) {
    const char* at = from.data + i * from.row;
    for (int64_t d = 0; d < vectors; d += W) store(to + i * row + d, load_as<dtype>(at + d * size));
    for (int64_t d = vectors; d < dim; ++d) to[i * row + d] = element(at + d * size, dtype);
  }
}

// A panel's queries and what is known of them so far.
struct Panel {
  const float* q;
  float *sums, *top, *total;
};

// What is added to a panel's scores after they are scaled: [keys][PANEL].
struct Masking {
  float scale;
  const float* rows;
};

// A block of keys: [keys] rows of `row` floats.
struct Block {
  const float *k, *v;
  int64_t row, keys, dim;
};

// scores [keys][PANEL] and their maxima, which begin with those in `top`. Long products are summed in
// pieces of at most DEPTH: the error of 256 terms added one by one would be twice as large.
template <int V>
DE_INLINE void score(const Block& block, const float* q, float* scores, Float (&top)[V]) {
  evenly(block.keys, ROWS, [&](int64_t first, int64_t count) {
    constant<ROWS>(count, [&](auto rows) {
      Float sum[rows][V] = {};
      const float* k = block.k + first * block.row;
      evenly(block.dim, DEPTH, [&](int64_t d, int64_t depth) {
        if (d > 0) {
          for (int r = 0; r < rows; ++r)
            for (int v = 0; v < V; ++v) {
              store(scores + (first + r) * PANEL + v * W, sum[r][v]);
              sum[r][v] = Float{};
            }
        }
        multiply(k + d, block.row, 1, q + d * PANEL, depth, sum);
        if (d > 0) {
          for (int r = 0; r < rows; ++r)
            for (int v = 0; v < V; ++v) sum[r][v] += load<Float>(scores + (first + r) * PANEL + v * W);
        }
      });
      for (int r = 0; r < rows; ++r)
        for (int v = 0; v < V; ++v) store(scores + (first + r) * PANEL + v * W, sum[r][v]);
      for (int v = 0; v < V; ++v) {
        for (int r = 1; r < rows; ++r) sum[0][v] = at_least(sum[r][v], sum[0][v]);
        top[v] = at_least(sum[0][v], top[v]);
      }
    });
  });
}

// scores becomes scale scores + mask, and `top` their maxima.
template <int V>
DE_INLINE void add_mask(const Masking& mask, int64_t keys, float* scores, Float (&top)[V]) {
  for (int64_t i = 0; i < keys; ++i)
    for (int v = 0; v < V; ++v) {
      const int64_t at = i * PANEL + v * W;
      const Float s = multiply_add(load<Float>(scores + at), splat(mask.scale), load<Float>(mask.rows + at));
      store(scores + at, s);
      top[v] = at_least(s, top[v]);
    }
}

// scores becomes exp(scale (scores - top)), whose sums over the keys are added to `total`. A key that is
// masked out weighs nothing, where exp would leave 2^-100.
template <int V, bool MASKED>
DE_INLINE void weigh(Exponential power, int64_t keys, float* scores, const Float (&top)[V],
                     Float (&total)[V]) {
  for (int64_t i = 0; i < keys; ++i)
    for (int v = 0; v < V; ++v) {
      float* at = scores + i * PANEL + v * W;
      const Float score = load<Float>(at), out = splat(-std::numeric_limits<float>::infinity());
      Float weight = power(score - top[v]);
      if (MASKED) weight = score == out ? Float{} : weight;
      store(at, weight);
      total[v] += weight;
    }
}

// sums = sums decay + weights v. The block's sum is made on its own: the error of 16,384 keys added
// one by one would be some ten times larger.
template <int V>
DE_INLINE void add_values(const Block& block, const float* weights, const Float (&decay)[V], float* sums) {
  evenly(block.dim, ROWS, [&](int64_t first, int64_t count) {
    constant<ROWS>(count, [&](auto rows) {
      Float sum[rows][V] = {};
      multiply(block.v + first, 1, block.row, weights, block.keys, sum);
      for (int r = 0; r < rows; ++r)
        for (int v = 0; v < V; ++v) {
          float* at = sums + (first + r) * PANEL + v * W;
          store(at, multiply_add(load<Float>(at), decay[v], sum[r][v]));
        }
    });
  });
}

// A panel of V vectors meets a block of keys.
template <int V, bool MASKED>
void attend(Exponential power, const Block& block, const Panel& panel, const Masking& mask, float* scores) {
  Float top[V], decay[V], total[V] = {};
  for (int v = 0; v < V; ++v) top[v] = load<Float>(panel.top + v * W);
  if (MASKED) {
    Float unmasked[V] = {};
    score(block, panel.q, scores, unmasked);
    add_mask(mask, block.keys, scores, top);
  } else {
    score(block, panel.q, scores, top);
  }
  weigh<V, MASKED>(power, block.keys, scores, top, total);
  for (int v = 0; v < V; ++v) {
    decay[v] = power(load<Float>(panel.top + v * W) - top[v]);
    store(panel.top + v * W, top[v]);
    float* at = panel.total + v * W;
    store(at, multiply_add(load<Float>(at), decay[v], total[v]));
  }
  add_values(block, scores, decay, panel.sums);
}

template <int32_t dtype, bool MASKED>
void attention(const AttentionParams& p, const Mask& mask, const AttentionBlocks& blocks, int64_t item,
               float* scratch) {
  const int64_t size = size_of(dtype), dim = p.dim;
  const int64_t parts = (p.queries + blocks.queries - 1) / blocks.queries;
  const int64_t b = item / parts / p.heads, head = item / parts % p.heads;
  const int64_t first = item % parts * blocks.queries;
  const int64_t rows = p.queries - first < blocks.queries ? p.queries - first : blocks.queries;

  float* q = scratch;
  float* sums = q + blocks.queries * dim;
  float* top = sums + blocks.queries * dim;
  float* total = top + blocks.queries;
  float* scores = total + blocks.queries;
  float* k = scores + blocks.keys * PANEL;
  float* v = k + blocks.keys * blocks.row;
  float* masks = v + blocks.keys * blocks.row;

  // Scores of the sign that makes the largest the heaviest, not yet scaled unless a mask is added to them.
  const Exponential power(MASKED ? 1.0f : std::fabs(p.scale));
  const float sign = !MASKED && p.scale < 0 ? -1.0f : 1.0f;
  pack_panels<dtype>(Tokens(p.q, b, head, first, size), rows, dim, sign, q);
  std::memset(sums, 0, sizeof(float) * (size_t)(blocks.queries * dim));
  std::memset(total, 0, sizeof(float) * (size_t)blocks.queries);
  for (int64_t i = 0; i < blocks.queries; ++i) top[i] = std::numeric_limits<float>::lowest();

  evenly(p.keys, blocks.keys, [&](int64_t key, int64_t count) {
    pack_rows<dtype>(Tokens(p.k, b, head, key, size), count, dim, blocks.row, k);
    pack_rows<dtype>(Tokens(p.v, b, head, key, size), count, dim, blocks.row, v);
    const Block block = {k, v, blocks.row, count, dim};
    for (int64_t i = 0; i < rows; i += PANEL) {
      const Panel panel = {q + i * dim, sums + i * dim, top + i, total + i};
      if (MASKED) {
        const Heads from = {(void*)(mask.data + key), mask.batch, mask.head, mask.query};
        const int64_t queries = rows - i < PANEL ? rows - i : PANEL;
        pack_panels<F32>(Tokens(from, b, head, first + i, sizeof(float)), queries, count, 1.0f, masks);
      }
      const Masking added = {p.scale, masks};
      (rows - i > W ? attend<2, MASKED> : attend<1, MASKED>)(power, block, panel, added, scores);
    }
  });
  unpack_panels<dtype>(sums, total, rows, dim, Tokens(p.out, b, head, first, size));
}

inline void attention(const AttentionParams& p, const AttentionBlocks& blocks, int64_t item, float* scratch) {
  if (p.dtype == F32) return attention<F32, false>(p, {}, blocks, item, scratch);
  if (p.dtype == BF16) return attention<BF16, false>(p, {}, blocks, item, scratch);
  attention<F16, false>(p, {}, blocks, item, scratch);
}

// float32, with a mask or none.
inline void masked_attention(const AttentionParams& p, const Mask& mask, const AttentionBlocks& blocks,
                             int64_t item, float* scratch) {
  (mask.data ? attention<F32, true> : attention<F32, false>)(p, mask, blocks, item, scratch);
}

}  // namespace
}  // namespace de
