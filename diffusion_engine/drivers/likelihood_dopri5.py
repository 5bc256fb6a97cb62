"""Adaptive integration of a sample and its log-density: Dormand and Prince's pair, through torchdiffeq."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from ..networks.network import ScoreNetwork
from ..sampler.branches import branches
from ..sampler.request import Request
from ..sampler.sampler import Sampler
from .likelihood_divergence import Divergence
from .likelihood_paths import Call, One, Part, Path, path

STEPS = 2000  # accepted and rejected ones of a sample


def torchdiffeq() -> ModuleType:
    """The package. Raises ValueError where it is not installed."""
    try:
        return import_module("torchdiffeq")
    except ImportError as error:
        raise ValueError(
            "solver='dopri5' integrates with torchdiffeq, which is not installed: pip install "
            "'diffusion-engine[likelihood]', or take one of the engine's solvers, such as solver='dpmpp_2m'"
        ) from error


def check(network: ScoreNetwork) -> None:
    """Raises ValueError where torchdiffeq is missing, or a network is none to take steps of any size with."""
    torchdiffeq()
    if not network.label_dtype.is_floating_point:
        raise ValueError(
            f"the network {network.name!r} takes whole labels, and dopri5 chooses its times: its steps would "
            "shrink at every jump from one label to the next. Take one of the engine's solvers, such as "
            "solver='dpmpp_2m', or give ScoreNetwork label_dtype=torch.float32 if it takes fractions"
        )


def run(rtol: float, atol: float) -> Callable[[Sampler, Request, Divergence], Part]:
    """What measures samples with these tolerances, each alone."""

    def measured(sampler: Sampler, part: Request, divergence: Divergence) -> Part:
        network, (last, *_, first) = sampler.network, sampler.points
        assert part.x is not None
        along, made = path(network.parameterisation, first, last), []
        for i, x in enumerate(part.x):
            one = part.part(i, i + 1)
            (condition, *_) = branches(one, network, sampler.device, sampler.input_dtype)
            call = One(network, condition, sampler.input_dtype, divergence.of_samples(i, i + 1))
            made.append(carried(along, call, x, divergence.count, rtol, atol))
        ends, integrals, calls = zip(*made, strict=True)
        return Part(torch.stack(ends), torch.stack(integrals, dim=1), list(calls))

    return measured


def carried(
    path: Path, call: Call, x: Tensor, probes: int, rtol: float, atol: float
) -> tuple[Tensor, Tensor, int]:
    """(x at the end, the integral of the divergence [probes], network calls) of one sample x [*state_shape].

    The state and every probe's integral are in the error norm, the larger of whose RMS counts, so that a
    tolerance holds for both. All float64 but the network.
    """
    calls = 0

    def rates(s: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        rate, divergence = path.rate(float(s), state[0], call)
        if not bool(rate.isfinite().all()):
            raise ValueError(
                f"the network's output is not finite at call {calls} of a likelihood: check its input and "
                "its weights, or begin at a larger t_min"
            )
        return rate, divergence

    z = path.enter(x.double())
    ends = torch.tensor([path.start, path.end], dtype=torch.float64, device=z.device)
    start = z, torch.zeros(probes, dtype=torch.float64, device=z.device)
    # step_t: it steps to the end itself, where it would go beyond it and interpolate.
    options = {"step_t": ends[1:], "max_num_steps": STEPS}
    try:
        with torch.no_grad():
            states, integrals = torchdiffeq().odeint(
                rates, start, ends, rtol=rtol, atol=atol, method="dopri5", options=options
            )
    except AssertionError as error:
        raise ValueError(
            f"dopri5 came to no end with rtol={rtol:g}, atol={atol:g} ({error}): the network's rounding is "
            "coarser than that; give larger tolerances, or run it in float64"
        ) from error
    return path.leave(states[-1]), integrals[-1], calls
