// Four consecutive elements of one sample, the unit of work of a thread, and how they are read and
// written. Host and device: the tests run the same code on a CPU.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "philox.h"
#include "noise.h"
#include "step.h"

namespace de {

constexpr int THREADS = 128;  // of a block
constexpr int WIDTH = 4;      // elements of a group: one Philox block, one 16-byte access

// How a launch divides a sample into groups and the groups among blocks; the same for all samples.
struct Grid {
  int64_t channels, pixels, groups;
  int32_t blocks;     // of one sample
  int32_t interleave;  // neighbouring threads take neighbouring channels of the same pixels
};

// Where a group lies: its number (the Philox counter), its first element and how many it has.
struct Place {
  int64_t group, channel, pixel;
  int32_t count;
};

// 64-bit division costs about a hundred instructions, and sizes rarely need it.
DE_HD void divide(int64_t n, int64_t by, int64_t& quotient, int64_t& rest) {
  if (((n | by) >> 32) == 0) {
    quotient = (uint32_t)n / (uint32_t)by;
    rest = (uint32_t)n % (uint32_t)by;
  } else {
    quotient = n / by;
    rest = n % by;
  }
}

// The group that is `turn`-th in the order of the threads.
DE_HD Place place_of(const Grid& g, int64_t turn) {
  if (g.interleave) {
    // Channels last: four pixels of one channel touch four cache lines, and the threads of the
    // other channels use up the rest of each.
    int64_t quad, channel;
    divide(turn, g.channels, quad, channel);
    return Place{channel * (g.pixels / WIDTH) + quad, channel, quad * WIDTH, WIDTH};
  }
  const int64_t first = turn * WIDTH, left = g.channels * g.pixels - first;
  Place at{turn, 0, first, left < WIDTH ? (int32_t)left : WIDTH};
  if (g.channels > 1) divide(first, g.pixels, at.channel, at.pixel);
  return at;
}

DE_HD int bytes_of(int32_t dtype) { return dtype == F32 ? 4 : 2; }

DE_HD char* address(const View& v, int64_t offset) {
  return static_cast<char*>(v.data) + offset * bytes_of(v.dtype);
}

DE_HD float widen(uint32_t bits, int32_t dtype) {
  if (dtype == BF16) return as_float(bits << 16);
  return __half2float(__ushort_as_half((unsigned short)bits));
}

DE_HD uint32_t narrow(float x, int32_t dtype) {
  if (dtype == BF16) return __bfloat16_as_ushort(__float2bfloat16_rn(x));
  return __half_as_ushort(__float2half_rn(x));
}

// Calls use(i, offset in elements) for the elements of a group, wherever they wrap into the next
// channel.
template <class Use>
DE_HD void for_each(const Grid& g, const Place& at, const View& v, Use use) {
  int64_t channel = at.channel, pixel = at.pixel;
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) {
    if (i < at.count) use(i, channel * v.channel + pixel * v.pixel);
    if (++pixel == g.pixels) {
      pixel = 0;
      ++channel;
    }
  }
}

DE_HD void load_wide(const char* at, int32_t dtype, float x[WIDTH]) {
  if (dtype == F32) {
    const float4 f = *reinterpret_cast<const float4*>(at);
    x[0] = f.x, x[1] = f.y, x[2] = f.z, x[3] = f.w;
  } else {
    const uint2 u = *reinterpret_cast<const uint2*>(at);
    x[0] = widen(u.x & 0xFFFF, dtype), x[1] = widen(u.x >> 16, dtype);
    x[2] = widen(u.y & 0xFFFF, dtype), x[3] = widen(u.y >> 16, dtype);
  }
}

DE_HD void store_wide(char* at, int32_t dtype, const float x[WIDTH]) {
  if (dtype == F32)
    *reinterpret_cast<float4*>(at) = float4{x[0], x[1], x[2], x[3]};
  else
    *reinterpret_cast<uint2*>(at) = uint2{narrow(x[0], dtype) | narrow(x[1], dtype) << 16,
                                          narrow(x[2], dtype) | narrow(x[3], dtype) << 16};
}

// Reads the group from a tensor whose element (0, 0) is at `base`. VEC: the four are adjacent and
// aligned. Elements past the end of the sample become 0.
template <bool VEC>
DE_HD void load(const Grid& g, const Place& at, const View& v, const char* base, float x[WIDTH]) {
  if constexpr (VEC) {
    load_wide(base + (at.channel * v.channel + at.pixel) * bytes_of(v.dtype), v.dtype, x);
  } else {
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) x[i] = 0.0f;
    for_each(g, at, v, [&](int i, int64_t offset) {
      if (v.dtype == F32)
        x[i] = reinterpret_cast<const float*>(base)[offset];
      else
        x[i] = widen(reinterpret_cast<const uint16_t*>(base)[offset], v.dtype);
    });
  }
}

template <bool VEC>
DE_HD void store(const Grid& g, const Place& at, const View& v, char* base, const float x[WIDTH]) {
  if constexpr (VEC) {
    store_wide(base + (at.channel * v.channel + at.pixel) * bytes_of(v.dtype), v.dtype, x);
  } else {
    for_each(g, at, v, [&](int i, int64_t offset) {
      if (v.dtype == F32)
        reinterpret_cast<float*>(base)[offset] = x[i];
      else
        reinterpret_cast<uint16_t*>(base)[offset] = (uint16_t)narrow(x[i], v.dtype);
    });
  }
}

}  // namespace de
