"""The shipped networks and those with a closed form under every executor, against the eager one."""

from functools import cache

import pytest
import torch
from optional import needs

from diffusion_engine import Sampler, _cpu
from diffusion_engine.native import Native
from diffusion_engine.solvers import solver
from diffusion_engine.testing import exact_network, labelled_mixture
from diffusion_engine.zoo import load_network

NETWORKS = {
    "exact": (lambda: exact_network(solver("ddim")), "ddim", {"n": 2}),
    "exact, with classes": (lambda: labelled_mixture(shape=(5,)), "ddim", {"condition": [1, 2]}),
    "exact, a derivative": (lambda: exact_network(solver("genie")), "genie", {"n": 2}),
    "exact, a student": (lambda: exact_network(solver("lcm")), "lcm", {"n": 2}),
    "digits": (lambda: load_network("digits"), "dpmpp_2m", {"condition": [1, 2]}),
    "digits_genie": (lambda: load_network("digits_genie"), "genie", {"condition": [1, 2]}),
}
EXECUTORS = (
    "native",
    "onnxruntime",
    "openvino",
    "native in bfloat16",
    "native in emulated bfloat16",
)
FLOAT32, BFLOAT16 = (
    1e-3,
    0.1,
)  # of the largest of a sample after four steps, which add up what a call is off
# What the runtime has no operation for, and what torch does in the network's own dtype.
DERIVATIVE = "differentiates in its forward, which torch does in float32: it does not run in bf16"
REFUSED = {("exact, a student", "onnxruntime"): "Could not find an implementation for Erf"} | {
    (name, executor): DERIVATIVE
    for name in ("exact, a derivative", "digits_genie")
    for executor in EXECUTORS
    if "bfloat16" in executor
}


@cache
def network_of(name):
    """One for all executors, which share what is exported."""
    return NETWORKS[name][0]()


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(
    "name", [n if n == "exact" else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_samples_are_those_of_the_module(name, executor):
    _, named, request = NETWORKS[name]
    how = {"executor": executor, "threads": 1}
    within = BFLOAT16 if "bfloat16" in executor else FLOAT32
    if "bfloat16" in executor:
        fast = [] if "emulated" in executor else _cpu.bf16s()
        _cpu.set_bf16(fast[0] if fast else "emulated")
        how = {"executor": Native(threads=1, dtype=torch.bfloat16)}
    elif executor != "native":
        needs("onnxscript"), needs(executor)
    network = network_of(name)
    wanted = Sampler(network, named, 4).sample(seed=1, **request).samples
    sampler = Sampler(network, named, 4, **how)
    if said := REFUSED.get((name, executor)):
        with pytest.raises(ValueError, match=said):
            sampler.sample(seed=1, **request)
        return
    got = sampler.sample(seed=1, **request).samples
    assert float((got - wanted).abs().max() / wanted.abs().max()) < within
