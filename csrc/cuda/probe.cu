// Whether a device can run what this module was built for: driver and architecture, found out by loading
// a kernel. All files are compiled for the same architectures.
#include "launch.cuh"
#include "launch.h"

namespace de {
namespace {

__global__ void probe_kernel() {}

}  // namespace

std::optional<std::string> objection(int device) {
  int before = 0;
  cudaFuncAttributes found;
  cudaError_t error = cudaGetDevice(&before);
  if (error == cudaSuccess) error = cudaSetDevice(device);
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&found, probe_kernel);
  cudaSetDevice(before);
  cudaGetLastError();  // forgets it
  if (error == cudaSuccess) return std::nullopt;
  return "no kernel of this build runs on cuda:" + std::to_string(device) + ": " + advice_on(error);
}

}  // namespace de
