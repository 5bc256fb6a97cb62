"""Likelihoods of data by the probability flow ODE (Song et al. 2021, section 4.3; Dockhorn et al. 2022).

With the ODE of likelihood_paths.py, dz/du = U(z, u), the density of data x at t_min is that of the prior
where the ODE takes them, times how much it spreads volumes on the way:

    log p(x) = log prior(x_T) + integral of div U du + log |dx_T/dz_T| - log |dx/dz|

A driver in that it is led by an error or a divergence; but it measures data, so that it is no option of a
Sampler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..networks.network import ScoreNetwork
from ..networks.placement import evaluating
from ..networks.wrapper import unwrapped
from ..processes import CLD, grids
from ..sampler.request import Request
from ..sampler.sampler import Sampler
from ..solvers import Rule
from . import likelihood_dopri5 as adaptive
from . import likelihood_steps as fixed
from .likelihood_asked import (
    DOPRI5,
    Asked,
    check_network,
    images,
    sampler_of,
    state_of,
    time_of_data,
)
from .likelihood_paths import Part, path
from .likelihood_prior import Measured, bits_per_dim, entropy, log_prior, spread


@dataclass(frozen=True, eq=False)
class Likelihood(Measured):
    """What data cost under a network, one entry a sample.

    bits_per_dim  [n] float64, of log_p: see `likelihood` for what is added
    error         [n] float64, bits/dim: standard error that the probes leave; 0 where the divergence is
                  exact, NaN where there was one probe
    seeds         of the samples
    log_p         [n] float64, in nats, of x at t_min; of CLD a lower bound in the mean
    prior         [n] float64, log-density of the latents, in nats
    latents       [n, *state_shape], where the ODE takes the samples
    nfe           network calls of each sample
    t_min         the time at which data were taken to be
    bound         whether bits_per_dim are upper bounds
    """

    log_p: Tensor
    prior: Tensor
    latents: Tensor
    nfe: tuple[int, ...]
    t_min: float
    bound: bool = False


def likelihood(
    network: ScoreNetwork,
    x: Tensor,
    *,
    condition: Any = None,
    solver: str | Rule = DOPRI5,
    steps: int | None = None,
    grid: str | grids.Grid | None = None,
    probes: int = 1,
    probe: str = "rademacher",
    exact: bool = False,
    seed: int | None = None,
    seeds: Sequence[int] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    t_min: float | None = None,
    dequantise: bool = False,
    range: tuple[float, float] | None = (-1.0, 1.0),
    batch_size: int = 64,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    backend: str = "auto",
    **options: Any,
) -> Likelihood:
    """log p(x) and bits/dim of data under a network, by the probability flow ODE (Song et al. 2021, eq. 39).

    x           [n, *shape], or one [*shape], in the range the network knows; uint8 with dequantise
    condition   as in `Sampler.sample`: log p(x | condition)
    solver      "dopri5", adaptive, through torchdiffeq (the extra `likelihood`); or a deterministic solver
                of the engine, name or object, whose options are further keywords
    steps, grid  of the engine's solvers, 50 steps; see Sampler
    probes      directions of Hutchinson's estimate of the divergence, the same at all times of a sample
    probe       "rademacher" or "gaussian"
    exact       the divergence itself, with a derivative for each of up to 1024 elements, no probes
    seed, seeds  of the samples' probes, levels and velocities, as in `Sampler.sample`
    rtol, atol  of dopri5, above 0, on the state and on log p
    t_min       the time at which x are data: None is 1e-5 of VP, sub-VP, VE and CLD (Song et al. 2021), else
                the process's own t_min
    dequantise  x are pixels of 256 levels, and become y = (255 image + U) / 256, scaled to the range, with U
                uniform in (0, 1): bits/dim then bound those of the pixels (Theis et al. 2016)
    range       in which 256 levels lie: bits/dim have log2(256 / (high - low)) added, 7 in [-1, 1] and 8 in
                [0, 1]. None: x are no pixels, and bits/dim are -log p / (elements log 2)
    batch_size  samples a call, of the engine's solvers
    dtype, device, backend  as in Sampler

    dopri5 integrates each sample alone, since steps that suited several would depend on all of them: a call
    is of one sample. The engine's solvers call the network for a batch, so that a sample's bits are the
    same alone where the network's are. A network of CLD is given [x, v] with v ~ N(0, gamma M I) of the
    sample's seed, and log_p is log p(x, v) plus the entropy of v: in the mean below log p(x) (Dockhorn et al.
    2022, appendix B.5).
    Raises ValueError on a stochastic solver, a guided network, a shape, tolerance or option that
    makes no sense, more elements than `exact` takes, and a network whose output has no derivative.
    """
    check_network(network, options)
    asked = Asked(probes, probe, exact, rtol, atol, range)
    first = network.process.at(time_of_data(network, t_min))
    how = {"dtype": dtype, "device": device, "backend": backend, "batch_size": batch_size}
    sampler = sampler_of(network, first, solver, steps, grid, options, how)
    asked.check_size(network)
    pixels = asked.pixels(dequantise)
    request = Request.of(
        sampler, x=x if pixels is None else images(x, pixels), condition=condition, seed=seed, seeds=seeds,
        start=first.t, encoding=0,
    )  # fmt: skip
    data = state_of(request, network, pixels).to(sampler.state_dtype)
    return _measured(sampler, replace(request, x=data), asked, solver == DOPRI5)


def _measured(sampler: Sampler, request: Request, asked: Asked, adapts: bool) -> Likelihood:
    """Data of a checked request, in batches."""
    sampler.ready(min(request.n, sampler.batch_size))
    network = sampler.network
    run = adaptive.run(asked.rtol, asked.atol) if adapts else fixed.run
    parts = []
    with evaluating(network.module, unwrapped(network.module)):
        for low in range(0, request.n, sampler.batch_size):
            part = request.part(low, low + sampler.batch_size)
            parts.append(run(sampler, part, asked.divergence(part, sampler)))
    return _joined(parts, sampler, request, asked)


def _joined(parts: Sequence[Part], sampler: Sampler, request: Request, asked: Asked) -> Likelihood:
    """What came of all parts."""
    network, (last, *_, first) = sampler.network, sampler.points
    process, size = network.process, torch.Size(network.shape).numel()
    latents = torch.cat([part.latents for part in parts])
    prior = log_prior(process, last, latents)
    known = size * path(network.parameterisation, first, last).log_volume
    if isinstance(process, CLD):
        known += entropy(process, size)
    each = torch.cat([part.integrals for part in parts], dim=1) + prior + known
    log_p = each.mean(dim=0)
    return Likelihood(
        bits_per_dim=bits_per_dim(log_p, size, asked.range),
        log_p=log_p,
        error=spread(each, asked.exact) / (size * math.log(2.0)),
        prior=prior,
        latents=latents,
        nfe=tuple(count for part in parts for count in part.calls),
        t_min=first.t,
        seeds=request.seeds,
        bound=isinstance(process, CLD),
    )
