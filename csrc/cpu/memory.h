// Views as runs of floats: which of them a vector can read as they lie, and copies of the others to
// and from a buffer.
#pragma once
#include "vector.h"

namespace de {
namespace {

constexpr int CHUNK = 1024;  // elements worked on at a time: the buffers stay in the first cache
constexpr int U = 4;         // vectors of a tile
constexpr int TILE = U * W;  // every pass works on whole tiles

DE_INLINE int64_t size_of(int32_t dtype) { return dtype == F32 ? 4 : 2; }

DE_INLINE float element(const char* p, int32_t dtype) {
  if (dtype == F32) return load<float>(p);
  const uint16_t h = load<uint16_t>(p);
  return dtype == BF16 ? as_float((uint32_t)h << 16) : half_to_float(h);
}

DE_INLINE void set_element(char* p, int32_t dtype, float value) {
  if (dtype == F32) return store(p, value);
  if (dtype == F16) return store(p, float_to_half(value));
  const uint32_t bits = as_bits(value);
  store(p, (uint16_t)(value == value ? (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16 : bits >> 16 | 0x40u));
}

// The order in which a sample's elements are walked: (channel, pixel), or (pixel, channel) where the
// slots lie that way.
struct Order {
  int64_t channels, pixels;
  bool by_pixel;

  Order(int64_t channels, int64_t pixels, const View& slot)
      : channels(channels), pixels(pixels), by_pixel(false) {
    by_pixel = !flat(slot) && slot.channel == 1 && slot.pixel == channels;
  }

  // Whether the view lies in memory as it is walked.
  bool flat(const View& v) const {
    const int64_t inner = by_pixel ? channels : pixels, outer = by_pixel ? pixels : channels;
    return (inner == 1 || (by_pixel ? v.channel : v.pixel) == 1) &&
           (outer == 1 || (by_pixel ? v.pixel : v.channel) == inner);
  }

  // Calls run(channel, first pixel, count, position of the first, distance of the positions) until
  // the elements [first, first + n) of the walk are covered; positions count from `first`.
  template <class Run>
  DE_INLINE void runs(int64_t first, int64_t n, Run run) const {
    if (by_pixel) {
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t from = (first - c + channels - 1) / channels;
        const int64_t to = (first + n - c + channels - 1) / channels;
        if (to > from) run(c, from, to - from, from * channels + c - first, channels);
      }
    } else {
      for (int64_t at = 0; at < n;) {
        const int64_t c = (first + at) / pixels, px = (first + at) % pixels;
        const int64_t count = n - at < pixels - px ? n - at : pixels - px;
        run(c, px, count, at, (int64_t)1);
        at += count;
      }
    }
  }
};

// Where a pass reads or writes a vector, converting on the way.
template <int32_t dtype>
DE_INLINE Float load_as(const char* p) {
  if (dtype == F32) return load<Float>(p);
  return dtype == BF16 ? from_bfloat(load<Half>(p)) : from_half(load<Half>(p));
}

template <int32_t dtype, bool past_caches = false>
DE_INLINE void store_as(char* p, Float value) {
  const auto write = [p](auto v) { past_caches ? stream(p, v) : store(p, v); };
  if (dtype == F32) return write(value);
  write(dtype == BF16 ? to_bfloat(value) : to_half(value));
}

template <int32_t dtype>
void gather(const Order& order, const View& v, int64_t first, int64_t n, float* to) {
  const int64_t size = size_of(dtype);
  const char* data = (const char*)v.data;
  if (order.flat(v) && n % TILE == 0) {
    for (int64_t i = 0; i < n; i += W) store(to + i, load_as<dtype>(data + (first + i) * size));
    return;
  }
  order.runs(first, n, [&](int64_t c, int64_t px, int64_t count, int64_t at, int64_t by) {
    const char* from = data + (c * v.channel + px * v.pixel) * size;
    const int64_t step = v.pixel * size;
    for (int64_t i = 0; i < count; ++i) to[at + i * by] = element(from + i * step, dtype);
  });
}

template <int32_t dtype>
void scatter(const Order& order, const View& v, int64_t first, int64_t n, const float* from) {
  const int64_t size = size_of(dtype);
  char* data = (char*)v.data;
  if (order.flat(v) && n % TILE == 0) {
    for (int64_t i = 0; i < n; i += W) store_as<dtype>(data + (first + i) * size, load<Float>(from + i));
    return;
  }
  order.runs(first, n, [&](int64_t c, int64_t px, int64_t count, int64_t at, int64_t by) {
    char* to = data + (c * v.channel + px * v.pixel) * size;
    const int64_t step = v.pixel * size;
    for (int64_t i = 0; i < count; ++i) set_element(to + i * step, dtype, from[at + i * by]);
  });
}

// Elements [first, first + n) of the walk as floats in a buffer.
inline void gather(const Order& order, const View& v, int64_t first, int64_t n, float* to) {
  if (v.dtype == F32) return gather<F32>(order, v, first, n, to);
  if (v.dtype == BF16) return gather<BF16>(order, v, first, n, to);
  gather<F16>(order, v, first, n, to);
}

// And back.
inline void scatter(const Order& order, const View& v, int64_t first, int64_t n, const float* from) {
  if (v.dtype == F32) return scatter<F32>(order, v, first, n, from);
  if (v.dtype == BF16) return scatter<BF16>(order, v, first, n, from);
  scatter<F16>(order, v, first, n, from);
}

// The last tile of a sample is full too: it repeats the last element, which finds nothing that the
// element itself does not find.
inline void pad(float* values, int64_t n) {
  for (int64_t i = n; i % TILE; ++i) values[i] = values[n - 1];
}

}  // namespace
}  // namespace de
