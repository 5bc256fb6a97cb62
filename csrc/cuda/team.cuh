// A block's threads as one object, so that a kernel's body reads the same on a GPU and in the
// emulation: `each` runs a stretch of code between two barriers on every thread.
#pragma once
#include <vector>

#include "philox.h"

namespace de {

#ifdef __CUDACC__
// On the GPU a thread keeps its own state, in registers.
template <class State>
struct Threads {
  State state;

  template <class Stretch>
  __device__ void each(Stretch stretch) {
    stretch((int)threadIdx.x, state);
    __syncthreads();
  }
};
#endif

// In the emulation one thread of the host plays them all, one after the other.
template <class State>
struct Played {
  std::vector<State> states;

  explicit Played(int threads) : states(threads) {}

  template <class Stretch>
  void each(Stretch stretch) {
    for (size_t t = 0; t < states.size(); ++t) stretch((int)t, states[t]);
  }
};

}  // namespace de
