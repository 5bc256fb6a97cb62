// Chooses the instruction set and spreads the ops over threads.
#pragma once
#include <algorithm>
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

// Parts of a pass over [batch, size] elements: several samples where they are small, a part of one where they
// are large. Elements cost differently, and idle samples nothing: so any thread takes any item, one by one.
struct Items {
  int64_t batch, size, work;  // work: in elements that draw nothing
  int64_t parts, part, group, count;

  Items(int64_t batch, int64_t size, int64_t cost);
  // Calls visit(b0, b1, first, last).
  template <class Visit>
  void at(int64_t item, Visit visit) const {
    const int64_t b0 = item / parts * group, first = item % parts * part;
    visit(b0, std::min(b0 + group, batch), std::min(first, size), std::min(first + part, size));
  }
};

// A step whose items whoever has threads runs, and `end` after all of them: the parts of a sample read its row.
struct Step {
  const StepParams& p;
  const Items items;

  explicit Step(const StepParams& p);
  void run(int64_t item) const;
  void end() const;
};

void run_step(const StepParams& p);
void run_noise(const NoiseParams& p);
void run_brownian(const BrownianParams& p);
void run_norms(const NormsParams& p);
void run_quantile(const QuantileParams& p);

}  // namespace de
