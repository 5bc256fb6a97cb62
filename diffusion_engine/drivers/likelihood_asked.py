"""What is asked of a likelihood, checked before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import checks, solvers
from ..networks.network import ScoreNetwork
from ..processes import CLD, Point, grids
from ..sampler.plans import points_of
from ..sampler.request import Request
from ..sampler.sampler import OPTIONS, Sampler
from ..solvers import Rule
from . import likelihood_dopri5 as adaptive
from .likelihood_divergence import EXACT, PROBES, Divergence, Exact, Hutchinson
from .likelihood_paths import least_time
from .likelihood_prior import LEVELS, dequantised, velocities

DOPRI5 = "dopri5"


@dataclass(frozen=True)
class Asked:
    """How the divergence is taken and bits are counted; `likelihood` explains the fields."""

    probes: int
    probe: str
    exact: bool
    rtol: float
    atol: float
    range: tuple[float, float] | None

    def __post_init__(self) -> None:
        settle = partial(checks.settle, self)
        settle("probes", checks.whole, 1, "a divergence is estimated with 1 probe or more")
        settle("probe", checks.one_of, PROBES)
        settle("exact", checks.flag)
        settle("range", checks.pair, "where pixels lie, as (-1, 1), or None where x are none")
        for name in ("rtol", "atol"):
            settle(name, checks.number)
            if getattr(self, name) <= 0.0:
                raise ValueError(f"{name}={getattr(self, name):g}: a tolerance is above 0, as 1e-5")

    def pixels(self, dequantise: bool) -> tuple[float, float] | None:
        """The range of pixels that are dequantised; None where none are."""
        if not checks.flag("dequantise", dequantise):
            return None
        if self.range is None:
            raise ValueError("dequantise=True spreads pixels over their levels: give their range=")
        return self.range

    def check_size(self, network: ScoreNetwork) -> None:
        """Raises ValueError where an exact divergence would take too many derivatives."""
        size = torch.Size(network.shape).numel()
        if self.exact and size > EXACT:
            raise ValueError(
                f"exact=True takes a derivative for each element, {size} of a sample {list(network.shape)}, "
                f"and {EXACT} at most: leave it out, and say probes="
            )

    def divergence(self, part: Request, sampler: Sampler) -> Divergence:
        """That of a part of the samples."""
        shape, device = sampler.network.shape, sampler.device
        if self.exact:
            return Exact(torch.empty(part.n, *shape, device=device))
        return Hutchinson.of(part.seeds, shape, self.probes, self.probe, device)


def check_network(network: Any, options: Mapping[str, Any]) -> None:
    """Raises ValueError where a network has no density that its ODE follows, or one is asked for guidance."""
    guidance = sorted(options.keys() & {"guidance", "compose", "classifier_scale", "interval"})
    if guidance:
        raise ValueError(
            f"{guidance[0]}={checks.said(options[guidance[0]])}: a guided ODE follows no density of the "
            "network's; leave it out, and give condition= for log p(x | condition)"
        )
    if not isinstance(network, ScoreNetwork):
        raise ValueError(
            f"network={type(network).__name__}: wrap the module in ScoreNetwork(module, process, shape), "
            "which says how it is called"
        )
    about = network.parameterisation
    ends = about.end_label is not None
    if about.latent or about.guided or about.gradient is not None or ends:
        what = "is told where its step ends" if ends else "is guided"
        what = "reads a latent" if about.latent else what
        raise ValueError(
            f"the network {about.name!r} {what}, and its ODE follows no density: give the network itself, "
            "without guidance or a classifier"
        )


def time_of_data(network: Any, t_min: float | None) -> float:
    """The time of data, which the grids of a run end at."""
    if t_min is None:
        return least_time(network.process)
    t = checks.number("t_min", t_min, "give a time")
    low, high = network.process.range[0], network.process.t_max
    if not low <= t < high or network.process.at(t).sigma == 0.0:
        raise ValueError(
            f"t_min={t:g}: data have a density where there is some noise: give a time from {low:g} on, with "
            f"noise, and below {high:g}"
        )
    return t


def sampler_of(
    network: ScoreNetwork,
    first: Point,
    solver: str | Rule,
    steps: int | None,
    grid: str | grids.Grid | None,
    options: Mapping[str, Any],
    how: Mapping[str, Any],
) -> Sampler:
    """What places the network and checks what is asked; its points are those of the run, and of dopri5 the
    two ends."""
    process = network.process
    if solver == DOPRI5:
        checks.names("dopri5", options, ())
        if steps is not None or grid is not None:
            raise ValueError(
                "steps and grid are of the engine's solvers, and dopri5 chooses its own: leave them out, or "
                "say solver='dpmpp_2m'"
            )
        adaptive.check(network)
        places = "cld_ode" if process.parts > 1 else "ddim"
        return Sampler(network, places, times=(process.noisiest, first), clip=None, **how)
    if process.parts > 1:
        raise ValueError(
            f"solver={checks.said(solver)} of {type(process).__name__}: the density of [x, v] is followed by "
            "solver='dopri5' alone"
        )
    rule = solvers.solver(solver, OPTIONS, **options)
    about = replace(network.parameterisation, process=replace(process, t_min=first.t))
    points = points_of(rule, about, 50 if steps is None else steps, grid, "t_min", None, None)
    return Sampler(network, rule, times=points, clip=None, **how)


def images(x: Any, pixels: tuple[float, float]) -> Tensor:
    """Pixels in their range, of uint8 or as they were given. Raises ValueError where some lie outside."""
    given = torch.as_tensor(x)
    low, high = pixels
    if given.dtype == torch.uint8:
        return low + (high - low) * given.double() / (LEVELS - 1)
    if given.numel() and not bool(((given >= low) & (given <= high)).all()):
        raise ValueError(
            f"x goes from {given.min().item():g} to {given.max().item():g}, and pixels that are dequantised "
            f"lie in range={pixels}: scale them, or give their range"
        )
    return given


def state_of(request: Request, network: ScoreNetwork, pixels: tuple[float, float] | None) -> Tensor:
    """What the ODE starts from, [n, *state_shape]. Raises ValueError where x is a whole state."""
    x = request.x
    assert x is not None
    if x.shape[1:] != network.shape:
        raise ValueError(
            f"x has shape {list(x.shape)}; a likelihood is that of data [n, "
            f"{', '.join(map(str, network.shape))}], and draws their velocities itself"
        )
    if pixels is not None:
        x = dequantised(x, request.seeds, *pixels)
    if not isinstance(network.process, CLD):
        return x
    drawn = velocities(network.process, request.seeds, network.shape)
    return torch.cat((x, drawn.to(x.device, x.dtype)), dim=1)
