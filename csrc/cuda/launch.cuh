// What the launchers share of the CUDA runtime: devices and errors.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace de {

// What CUDA says, and what to do.
inline std::string advice_on(cudaError_t error) {
  const char* advice =
      "If an earlier kernel of this process failed, CUDA_LAUNCH_BLOCKING=1 shows which one.";
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion ||
      error == cudaErrorInvalidDeviceFunction)
    advice = "This build has no code for this GPU: rebuild with TORCH_CUDA_ARCH_LIST set to its "
             "compute capability, or use backend='triton'.";
  else if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver)
    advice = "Check with nvidia-smi that a GPU is visible and that its driver is as new as the "
             "toolkit that built this module, or use backend='torch'.";
  return std::string(cudaGetErrorString(error)) + " (" + cudaGetErrorName(error) + "). " + advice;
}

inline void check(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // forgets it: the next launch is judged on its own
  throw std::runtime_error(std::string(op) + ": CUDA refused the launch: " + advice_on(error));
}

// Makes `device` current for a launch; torch may have left another one so.
class OnDevice {
 public:
  OnDevice(const char* op, int device) {
    check(op, cudaGetDevice(&before_));
    if (before_ == device) return;
    check(op, cudaSetDevice(device));
    changed_ = true;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// The driver's answer comes from memory: no synchronisation, allowed during a graph's capture.
inline int multiprocessors_of(const char* op, int device) {
  int count = 0;
  check(op, cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

}  // namespace de
