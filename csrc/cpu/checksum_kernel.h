// Checksums of a block of memory; checksum.cpp says where the blocks are.
#pragma once
#include <cstring>

#include "checksum.h"

namespace de {
namespace {

constexpr int LANES = 8;  // sums at a time: a multiplication takes three cycles

inline void add_words(uint64_t (&sums)[LANES], const unsigned char* from) {
  uint64_t words[LANES];
  std::memcpy(words, from, sizeof words);
  for (int lane = 0; lane < LANES; ++lane) sums[lane] = round_of(sums[lane], words[lane]);
}

uint64_t checksum(const unsigned char* from, int64_t bytes) {
  uint64_t sums[LANES] = {1, 2, 3, 4, 5, 6, 7, 8};
  constexpr int64_t STRIDE = sizeof sums;
  int64_t at = 0;
  for (; at + STRIDE <= bytes; at += STRIDE) add_words(sums, from + at);
  if (at < bytes) {
    unsigned char rest[STRIDE] = {};
    std::memcpy(rest, from + at, bytes - at);
    add_words(sums, rest);
  }
  uint64_t all = (uint64_t)bytes;
  for (const uint64_t sum : sums) all = round_of(all, sum);
  return all;
}

}  // namespace
}  // namespace de
