// How the ops `norms` and `quantile` are divided among blocks; free of the CUDA runtime.
#pragma once
#include <stdexcept>
#include <string>

#include "reductions.cuh"

namespace de {

inline int64_t workspace_of(const NormsParams& p) {
  return p.segments() == 1 ? 0 : p.batch * p.segments() * SUMS * (int64_t)sizeof(double);
}

inline uint32_t blocks_of(const NormsParams& p) {
  if (p.batch * p.segments() > INT32_MAX)
    throw std::invalid_argument("a batch of " + std::to_string(p.batch) +
                                " samples is too large for one launch; split it");
  if (p.segments() > 1 && !p.workspace)
    throw std::invalid_argument("norms of samples of this size needs a workspace of " +
                                std::to_string(workspace_of(p)) + " bytes");
  return (uint32_t)(p.batch * p.segments());
}

inline uint32_t blocks_of(const QuantileParams& p) {
  if (p.size() > INT32_MAX)
    throw std::invalid_argument("quantile counts in 32 bits; a sample has " + std::to_string(p.size()) +
                                " elements");
  return (uint32_t)p.batch;
}

}  // namespace de
