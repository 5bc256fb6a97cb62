// How a group norm reads and writes: one to eight elements of any dtype at once.
#pragma once
#include "access.cuh"

namespace de {

DE_HD float load_one(const View& v, int64_t offset) {
  if (v.dtype == F32) return static_cast<const float*>(v.data)[offset];
  return widen(static_cast<const uint16_t*>(v.data)[offset], v.dtype);
}

DE_HD void store_one(const View& v, int64_t offset, float x) {
  if (v.dtype == F32)
    static_cast<float*>(v.data)[offset] = x;
  else
    static_cast<uint16_t*>(v.data)[offset] = (uint16_t)narrow(x, v.dtype);
}

// WIDTH adjacent elements; `wide`: at a multiple of their size, or of 16 bytes.
template <int WIDTH_>
DE_HD void load_access(const View& v, int64_t offset, bool wide, float x[WIDTH_]) {
  const char* at = address(v, offset);
  if (!wide || WIDTH_ == 1) {
#pragma unroll
    for (int i = 0; i < WIDTH_; ++i) x[i] = load_one(v, offset + i);
  } else if constexpr (WIDTH_ == 8) {
    if (v.dtype == F32) {
      load_wide(at, F32, x);
      load_wide(at + 16, F32, x + 4);
    } else {
      const uint4 u = *reinterpret_cast<const uint4*>(at);
      const uint32_t words[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] = widen(words[i / 2] >> (i % 2 * 16) & 0xFFFF, v.dtype);
    }
  } else if constexpr (WIDTH_ == 4) {
    load_wide(at, v.dtype, x);
  } else if constexpr (WIDTH_ == 2) {
    if (v.dtype == F32) {
      const float2 f = *reinterpret_cast<const float2*>(at);
      x[0] = f.x, x[1] = f.y;
    } else {
      const uint32_t u = *reinterpret_cast<const uint32_t*>(at);
      x[0] = widen(u & 0xFFFF, v.dtype), x[1] = widen(u >> 16, v.dtype);
    }
  }
}

template <int WIDTH_>
DE_HD void store_access(const View& v, int64_t offset, bool wide, const float x[WIDTH_]) {
  char* at = address(v, offset);
  if (!wide || WIDTH_ == 1) {
#pragma unroll
    for (int i = 0; i < WIDTH_; ++i) store_one(v, offset + i, x[i]);
  } else if constexpr (WIDTH_ == 8) {
    if (v.dtype == F32) {
      store_wide(at, F32, x);
      store_wide(at + 16, F32, x + 4);
    } else {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        words[i] = narrow(x[2 * i], v.dtype) | narrow(x[2 * i + 1], v.dtype) << 16;
      *reinterpret_cast<uint4*>(at) = uint4{words[0], words[1], words[2], words[3]};
    }
  } else if constexpr (WIDTH_ == 4) {
    store_wide(at, v.dtype, x);
  } else if constexpr (WIDTH_ == 2) {
    if (v.dtype == F32)
      *reinterpret_cast<float2*>(at) = float2{x[0], x[1]};
    else
      *reinterpret_cast<uint32_t*>(at) = narrow(x[0], v.dtype) | narrow(x[1], v.dtype) << 16;
  }
}

DE_HD int64_t offset_of(const View& v, int64_t b, int64_t channel, int64_t pixel) {
  return b * v.batch + channel * v.channel + pixel * v.pixel;
}

}  // namespace de
