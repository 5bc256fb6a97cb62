// The op `step` for native code: the packed row (diffusion_engine/ops/layout.py) and the buffers of a
// launch. Plain C++ and raw pointers: the CPU and CUDA kernels both take StepParams by value.
#pragma once
#include <cstdint>

namespace de {

constexpr int SLOTS = 5, OUTPUTS = 16, NORMALS = 2, INPUTS = 2, TENSORS = 4, LABELS = 2;

// float columns
constexpr int P = 0, Q = 5, RAW = 21, LO = 37, HI = 38, SCALE = 39, A = 40, D = 65, E = 70, C = 75,
              C_IN = 85, V0 = 87, V1 = 88, U0 = 89, U1 = 90, COEF = 96;
// int32 columns
constexpr int NEXT = 0, KEY = 1, READS = 2, WRITES = 3, FLAGS = 4, READ = 5, JV = 7, H = 8, INDEX = 24;
// bits of FLAGS
constexpr int DENOISED = 1, RAW_USED = 2, LEARNED = 4, MASKED = 8, NORMAL = 16;

// A row of the op `brownian`: how many terms its sum has and their m, then the key of each.
constexpr int DEPTH = 17, HEADER = 2, TERMS = 2 * DEPTH;

enum DType : int32_t { F32 = 0, BF16 = 1, F16 = 2, F64 = 3, I64 = 4 };

// One tensor, its pixels flattened: element (b, c, px) lies at
// data + b * batch + c * channel + px * pixel, strides counted in elements. Null data: absent.
struct View {
  void* data;
  int64_t batch, channel, pixel;
  int32_t dtype;
};

struct StepParams {
  // Sizes. Where every tensor is dense in (channel, pixel) order the caller may pass channels = 1 and
  // pixels = C * P: the numbering of elements, and so the noise, stays the same.
  int64_t batch, channels, pixels;
  // Channels of a block in channel strides: an output's block h starts at h * block * channel stride.
  // Equal to the true C, also when channels and pixels were merged as above.
  int64_t block;
  int32_t slots, outputs, entries, tensors, inputs, normals, learned;

  View slot[SLOTS];      // float32
  View out[TENSORS];     // what the network returned; out[].batch is the stride of an entry
  int32_t blocks[TENSORS];  // channel blocks of each; block numbers run on across the tensors
  int64_t out_entries[TENSORS];  // of each; this, `rows` and `room` are for checks of the indices
  View net_in;           // net_in.batch is the stride of an entry; input i starts at channel i * block
  View noise;            // float32, draw m at noise_draw * m
  int64_t noise_draw;
  View mask, known, denoised;  // float32

  void* label;           // [entries of the network] of label_dtype
  void* end_label;       // the same of where the step ends, or null
  int32_t label_dtype;
  int32_t* row;          // [batch]
  const int64_t* seed;   // [batch]
  const int32_t* src;    // [batch, outputs] or null
  const int32_t* dst;    // [batch, entries] or null
  const int32_t* given;  // [batch], 0 where the sample draws although there is noise, or null
  int32_t* status;       // [batch] or null
  int32_t* ticket;       // [batch] zeros; used by GPU kernels
  const float* coef;     // [rows, COEF]
  const int32_t* index;  // [rows, INDEX]
  const double* labels;  // [rows, LABELS]: label, end_label
  int64_t rows, room;    // of the table; entries that net_in and label have at least
};

}  // namespace de
