// What the kernels' files offer to bind.cpp. Launchers throw std::invalid_argument for parameters
// that no kernel takes and std::runtime_error where CUDA refuses; the message says what to do.
#pragma once
#include <optional>
#include <string>

#include "layers.h"
#include "noise.h"
#include "reductions.h"
#include "step.h"

namespace de {

// `stream` is a cudaStream_t of `device`. Nothing is waited for.
void step(const StepParams& p, void* stream, int device);
void noise(const NoiseParams& p, void* stream, int device);
void brownian(const BrownianParams& p, void* stream, int device);
void group_norm(const GroupNormParams& p, void* stream, int device);
void attention(const AttentionParams& p, void* stream, int device);
void norms(const NormsParams& p, void* stream, int device);
void quantile(const QuantileParams& p, void* stream, int device);

// Why no kernel of this module runs on a device (its driver, its architecture), if none does.
std::optional<std::string> objection(int device);

// Bytes that `workspace` of the parameters has to hold.
int64_t group_norm_workspace(const GroupNormParams& p);
int64_t attention_workspace(const AttentionParams& p);
int64_t norms_workspace(const NormsParams& p);

// The kernels' code, block by block and thread by thread, on the CPU and on memory of the host; the
// grid is that of a GPU with so many multiprocessors. For tests of indexing where there is no GPU.
void step_on_host(const StepParams& p, int multiprocessors);
void noise_on_host(const NoiseParams& p, int multiprocessors);
void brownian_on_host(const BrownianParams& p, int multiprocessors);
void group_norm_on_host(const GroupNormParams& p);
void attention_on_host(const AttentionParams& p);
void norms_on_host(const NormsParams& p);
void quantile_on_host(const QuantileParams& p);

}  // namespace de
