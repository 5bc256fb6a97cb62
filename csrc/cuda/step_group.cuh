// One row of one sample: the part that a block shares, and the update of four elements.
// diffusion_engine/ops/step.py is the definition. Products and sums are plain operators:
// -fmad=false (-ffp-contract=off on the host) keeps each rounded on its own.
#pragma once
#include "access.cuh"
#include "label.h"

namespace de {

// A network output of this sample: the first element of its channel block, or null where the row
// does not read it.
struct Source {
  const char* base;
  int32_t tensor;
};

// A row, copied into shared memory once per block: all threads read the same coefficient at a
// time, which shared memory serves as one broadcast. Kernel parameters would do as well, but the
// host does not know the row: a CUDA graph replays one launch for all rows.
struct Row {
  float coef[COEF];
  int32_t index[INDEX];
  Source source[OUTPUTS];
  bool stored;  // the sample's normals are read, not drawn
};

DE_HD Source source_of(const StepParams& p, int64_t b, int64_t r, int j) {
  const float* coef = p.coef + r * COEF;
  const int32_t* index = p.index + r * INDEX;
  const int32_t entry = p.src[b * p.outputs + j];
  const bool variance = p.learned && index[FLAGS] & LEARNED && (index[JV] > 0 ? index[JV] : 0) == j;
  if (entry < 0 || (coef[Q + j] == 0.0f && coef[RAW + j] == 0.0f && !variance))
    return Source{nullptr, 0};
  int32_t block = index[H + j];
#pragma unroll 1
  for (int t = 0; t < p.tensors; ++t) {
    const View& v = p.out[t];
    if (block >= 0 && block < p.blocks[t])
      return Source{address(v, entry * v.batch + block * p.block * v.channel), t};
    block -= p.blocks[t];
  }
  return Source{nullptr, 0};
}

DE_HD int outputs_of(const StepParams& p) { return p.src && p.tensors ? p.outputs : 0; }

// One thread's share of copying row r of sample b.
DE_HD void load_row(const StepParams& p, Row& row, int64_t b, int64_t r, int thread) {
  for (int i = thread; i < COEF; i += THREADS) row.coef[i] = p.coef[r * COEF + i];
  for (int i = thread; i < INDEX; i += THREADS) row.index[i] = p.index[r * INDEX + i];
  for (int j = thread; j < outputs_of(p); j += THREADS) row.source[j] = source_of(p, b, r, j);
  if (thread == 0) row.stored = p.noise.data && (!p.given || p.given[b]);
}

// One thread's share of the next call's labels, for the first block of the sample.
DE_HD void write_labels(const StepParams& p, int64_t b, int64_t r, int thread) {
  if (!p.label || !p.dst) return;
#pragma unroll 1
  for (int g = thread; g < p.entries; g += THREADS) {
    const int32_t entry = p.dst[b * p.entries + g];
    if (entry >= 0) set_labels(p, entry, r);
  }
}

// A term whose weight is 0 is left out: 0 * nan would be nan.
DE_HD void add(float total[WIDTH], float weight, const float x[WIDTH]) {
  if (weight == 0.0f) return;
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) total[i] = total[i] + weight * x[i];
}

DE_HD void copy(float to[WIDTH], const float from[WIDTH]) {
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) to[i] = from[i];
}

// Comparisons and not fminf: a nan has to pass.
DE_HD void clip(const Row& row, float x[WIDTH]) {
  const float lo = row.coef[LO], hi = row.coef[HI], scale = row.coef[SCALE];
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) {
    const float low = x[i] < lo ? lo : x[i];
    x[i] = (low > hi ? hi : low) * scale;
  }
}

template <bool VEC>
DE_HD void normal(const StepParams& p, const Grid& g, const Row& row, int64_t b, const Place& at,
                  int m, float z[WIDTH]) {
  if (row.stored)
    load<VEC>(g, at, p.noise, address(p.noise, m * p.noise_draw + b * p.noise.batch), z);
  else
    normals4((uint64_t)p.seed[b], (uint32_t)row.index[KEY], (uint32_t)m, (uint64_t)at.group, z);
}

// total = mask total + (1 - mask) (U0 known + U1 z)
template <bool VEC>
DE_HD void blend(const StepParams& p, const Grid& g, const Row& row, int64_t b, const Place& at,
                 float total[WIDTH]) {
  float region[WIDTH] = {}, x[WIDTH];
  if (row.coef[U0] != 0.0f) {
    load<VEC>(g, at, p.known, address(p.known, b * p.known.batch), x);
    add(region, row.coef[U0], x);
  }
  if (row.coef[U1] != 0.0f) {
    normal<VEC>(p, g, row, b, at, NORMALS, x);
    add(region, row.coef[U1], x);
  }
  load<VEC>(g, at, p.mask, address(p.mask, b * p.mask.batch), x);
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) total[i] = x[i] * total[i] + (1.0f - x[i]) * region[i];
}

// Adds the fresh normals to the slots that are written. One draw at a time: four registers, and one
// copy of Philox in the code.
template <int K, bool VEC>
DE_HD void add_normals(const StepParams& p, const Grid& g, const Row& row, int64_t b,
                       const Place& at, const float variance[WIDTH], float fresh[K][WIDTH]) {
  const int32_t flags = row.index[FLAGS], writes = row.index[WRITES];
#pragma unroll 1
  for (int m = 0; m < p.normals; ++m) {
    if (!(flags & NORMAL << m)) continue;
    float z[WIDTH];
    normal<VEC>(p, g, row, b, at, m, z);
    if (p.learned && flags & LEARNED && outputs_of(p)) {
#pragma unroll
      for (int i = 0; i < WIDTH; ++i)
        z[i] = z[i] * exponential(row.coef[V0] + row.coef[V1] * variance[i]);
    }
#pragma unroll
    for (int k = 0; k < K; ++k)
      if (writes >> k & 1) add(fresh[k], row.coef[C + k * NORMALS + m], z);
  }
}

// The network's next inputs, into every entry of the sample.
template <int K, bool VEC>
DE_HD void write_inputs(const StepParams& p, const Grid& g, const Row& row, int64_t b,
                        const Place& at, const float fresh[K][WIDTH]) {
#pragma unroll 1
  for (int i = 0; i < p.inputs; ++i) {
    // Picked with masks: of comparisons the compiler makes an index, and the slots leave the
    // registers for local memory (measured: 16 bytes of stack for each, 20 registers more).
    uint32_t bits[WIDTH] = {};
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const uint32_t picked = row.index[READ + i] == k ? 0xFFFFFFFFu : 0u;
#pragma unroll
      for (int e = 0; e < WIDTH; ++e) bits[e] |= picked & as_bits(fresh[k][e]);
    }
    float x[WIDTH];
#pragma unroll
    for (int e = 0; e < WIDTH; ++e) x[e] = row.coef[C_IN + i] * as_float(bits[e]);
#pragma unroll 1
    for (int e = 0; e < p.entries; ++e) {
      const int32_t entry = p.dst[b * p.entries + e];
      if (entry < 0) continue;
      const int64_t offset = entry * p.net_in.batch + i * p.block * p.net_in.channel;
      store<VEC>(g, at, p.net_in, address(p.net_in, offset), x);
    }
  }
}

// Slots whose old value is needed: what the row's sums read, and what the network reads unchanged.
DE_HD int32_t reads_of(const StepParams& p, const Row& row) {
  int32_t reads = row.index[READS];
  if (p.net_in.data)
#pragma unroll 1
    for (int i = 0; i < p.inputs; ++i) reads |= 1 << row.index[READ + i] & ~row.index[WRITES];
  return reads;
}

// Returns whether a written value is not finite. EXTRAS: the launch has normals or a mask.
template <int K, bool VEC, bool EXTRAS>
DE_HD bool step_group(const StepParams& p, const Grid& g, const Row& row, int64_t b, int64_t turn) {
  const Place at = place_of(g, turn);
  const int32_t reads = reads_of(p, row), writes = row.index[WRITES];
  const int outputs = outputs_of(p);
  float slot[K][WIDTH] = {}, out[2][WIDTH] = {};

  // All loads of the usual row (its slots, two outputs) are on their way before the first is used.
#pragma unroll
  for (int k = 0; k < K; ++k)
    if (reads >> k & 1)
      load<VEC>(g, at, p.slot[k], address(p.slot[k], b * p.slot[k].batch), slot[k]);
  const auto load_pair = [&](int first) {
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (first + i < outputs && row.source[first + i].base) {
        const Source s = row.source[first + i];
        load<VEC>(g, at, p.out[s.tensor], s.base, out[i]);
      }
  };
  load_pair(0);

  float denoised[WIDTH] = {}, raw[WIDTH] = {}, variance[WIDTH] = {};
#pragma unroll
  for (int k = 0; k < K; ++k) add(denoised, row.coef[P + k], slot[k]);
#pragma unroll 1
  for (int first = 0; first < outputs; first += 2) {
    if (first) load_pair(first);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int j = first + i;
      if (j >= outputs || !row.source[j].base) continue;
      add(denoised, row.coef[Q + j], out[i]);
      add(raw, row.coef[RAW + j], out[i]);
      if (EXTRAS && (row.index[JV] > 0 ? row.index[JV] : 0) == j) copy(variance, out[i]);
    }
  }
  clip(row, denoised);

  float fresh[K][WIDTH] = {};
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (!(writes >> k & 1)) continue;
#pragma unroll
    for (int l = 0; l < K; ++l) add(fresh[k], row.coef[A + k * SLOTS + l], slot[l]);
    add(fresh[k], row.coef[D + k], denoised);
    add(fresh[k], row.coef[E + k], raw);
  }
  if constexpr (EXTRAS) {
    add_normals<K, VEC>(p, g, row, b, at, variance, fresh);
    if (p.mask.data && row.index[FLAGS] & MASKED && writes & 1)
      blend<VEC>(p, g, row, b, at, fresh[0]);
  }

  bool bad = false;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (writes >> k & 1) {
      store<VEC>(g, at, p.slot[k], address(p.slot[k], b * p.slot[k].batch), fresh[k]);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i)
        bad |= i < at.count && (as_bits(fresh[k][i]) & 0x7F800000u) == 0x7F800000u;
    } else {
      copy(fresh[k], slot[k]);
    }
  }
  if (p.denoised.data)
    store<VEC>(g, at, p.denoised, address(p.denoised, b * p.denoised.batch), denoised);
  if (p.net_in.data && p.dst) write_inputs<K, VEC>(p, g, row, b, at, fresh);
  return bad;
}

// The row changes in place, once every block of the sample has read it; the last one to arrive says
// so. The counter is zero again for the next launch, so a CUDA graph can replay this.
DE_HD void leave_row(const StepParams& p, const Grid& g, int64_t b, int32_t next) {
  if (g.blocks > 1) {
#ifdef __CUDA_ARCH__
    __threadfence();
    const int32_t before = atomicAdd(&p.ticket[b], 1);
#else
    const int32_t before = p.ticket[b]++;
#endif
    if (before != g.blocks - 1) return;
    p.ticket[b] = 0;
  }
  p.row[b] = next;
}

template <int K, bool VEC, bool EXTRAS>
DE_HD void step_thread(const StepParams& p, const Grid& g, const Row& row, int64_t b, int block,
                       int thread) {
  bool bad = false;
#pragma unroll 1
  for (int64_t turn = (int64_t)block * THREADS + thread; turn < g.groups;
       turn += (int64_t)g.blocks * THREADS)
    bad |= step_group<K, VEC, EXTRAS>(p, g, row, b, turn);
  if (bad && p.status) p.status[b] = 1;
}

}  // namespace de
