// An operation's Epilogue for Python, as properties of the operation's own parameters.
#pragma once
#include "bind_params.h"

namespace de {
namespace {

// p.NAME = (address, elements from sample to sample) of a vector for each sample
template <class Params>
void sample_vector(pybind11::class_<Params>& c, const char* name, const float* Epilogue::*at,
                   int64_t Epilogue::*batch) {
  using Tuple = std::tuple<uintptr_t, int64_t>;
  c.def_property(
      name,
      [at, batch](const Params& p) {
        return Tuple(reinterpret_cast<uintptr_t>(p.epilogue.*at), p.epilogue.*batch);
      },
      [at, batch](Params& p, const Tuple& t) {
        p.epilogue.*at = reinterpret_cast<const float*>(std::get<0>(t));
        p.epilogue.*batch = std::get<1>(t);
      });
}

// bias, shift, activation (its number in params.h), gate and residual.
template <class Params>
void epilogue(pybind11::class_<Params>& c) {
  using Tuple = std::tuple<uintptr_t, int64_t, int64_t>;
  c.def_property(
      "bias", [](const Params& p) { return reinterpret_cast<uintptr_t>(p.epilogue.bias); },
      [](Params& p, uintptr_t at) { p.epilogue.bias = reinterpret_cast<const float*>(at); });
  c.def_property(
      "activation", [](const Params& p) { return p.epilogue.activation; },
      [](Params& p, int32_t activation) { p.epilogue.activation = activation; });
  sample_vector(c, "shift", &Epilogue::shift, &Epilogue::shift_batch);
  sample_vector(c, "gate", &Epilogue::gate, &Epilogue::gate_batch);
  c.def_property(
      "residual",
      [](const Params& p) {
        const Rows& r = p.epilogue.residual;
        return Tuple(reinterpret_cast<uintptr_t>(r.data), r.batch, r.row);
      },
      [](Params& p, const Tuple& t) {
        p.epilogue.residual = {reinterpret_cast<float*>(std::get<0>(t)), std::get<1>(t), std::get<2>(t)};
      });
}

}  // namespace
}  // namespace de
