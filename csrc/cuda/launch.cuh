// What the launchers share of the CUDA runtime: devices and errors.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace de {

// Makes `device` current for a launch; torch may have left another one so.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    cudaGetDevice(&before_);
    if (before_ != device) cudaSetDevice(device);
    changed_ = before_ != device;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

inline int multiprocessors_of(int device) {
  int count = 0;
  // The driver's answer comes from memory: no synchronisation, allowed during a graph's capture.
  const cudaError_t error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return error == cudaSuccess ? count : 1;
}

inline void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return;
  const char* advice =
      "If an earlier kernel of this process failed, CUDA_LAUNCH_BLOCKING=1 shows which one.";
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion)
    advice = "This build has no code for this GPU: rebuild with TORCH_CUDA_ARCH_LIST set to its "
             "compute capability, or use backend='triton'.";
  else if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver)
    advice = "Check with nvidia-smi that a GPU is visible and its driver is new enough for the "
             "toolkit that built this module, or use backend='torch'.";
  throw std::runtime_error(std::string(op) + ": CUDA refused the launch: " +
                           cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + "). " +
                           advice);
}

}  // namespace de
