// Chooses the instruction set and spreads the ops over threads.
#pragma once
#include <string>
#include <vector>

#include "kernels.h"

namespace de {

// A build that checks what it uses as an index, and throws std::out_of_range (an IndexError in Python)
// before it reads or writes anything: DIFFUSION_ENGINE_DEBUG=1 in setup.py.
#ifdef DE_DEBUG
constexpr bool DEBUG = true;
#else
constexpr bool DEBUG = false;
#endif

std::vector<const Kernels*> supported();  // best first
const Kernels& kernels();                 // the one in use
bool choose(const std::string& isa);      // false where the machine does not have it

void run_step(const StepParams& p);
void run_noise(const NoiseParams& p);
void run_brownian(const BrownianParams& p);

}  // namespace de
