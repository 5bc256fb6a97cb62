// What processors offer for products in bf16 with sums in float32.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "attend_bf16.h"

namespace de {

// Rows of a block, columns of a packed panel, and terms that are summed at a time.
constexpr int64_t HALF_ROWS = 32, HALF_COLUMNS = 32, HALF_TERMS = 32;

// The terms of a row of a product, which begins at `a`: at a + offsets[i] lie HALF_TERMS blocks of them, for each i.
// A packed panel has them in the same order: [piece][block][pair of terms][HALF_COLUMNS][2], 0 where there is none.
struct Pieces {
  const int64_t* offsets;
  int64_t count, blocks;
  int64_t empty = 0;  // pairs at the end of each piece that are 0 in the panel: a product may pass over them
  // What is read after it: with every block a product may ask memory for the next `lines` cache lines from there.
  const uint16_t* ahead = nullptr;
  int64_t lines = 0;
};

struct ConvParams;
struct HalfConvBlocks;

struct HalfKernels {
  const char* name;  // "amx", "avx512_bf16", or "emulated"
  void (*product)(const uint16_t* a, int64_t row, const Pieces& pieces, const uint16_t* panel, int64_t rows, float* to,
                  int64_t to_row, bool add);
  // One of blocks.items(params), with blocks.scratch(masked) floats of its own.
  void (*attend)(const AttendParams&, const HalfAttendBlocks& blocks, int64_t item, float* scratch);
  // An item of a convolution, see conv_bf16.h, with blocks.scratch(params) floats of its own.
  void (*conv)(const ConvParams&, const HalfConvBlocks& blocks, int64_t item, float* scratch);
};

std::vector<const HalfKernels*> half_supported();  // at speed, best first
const HalfKernels* half_in_use();                  // null where there is none
const HalfKernels& half_kernels();                 // throws where there is none
bool choose_half(const std::string& name);         // also "emulated", on any processor, and "" for none

extern const HalfKernels half_emulated;
#ifdef DE_X86
extern const HalfKernels half_amx, half_avx512_bf16;
#endif

}  // namespace de
