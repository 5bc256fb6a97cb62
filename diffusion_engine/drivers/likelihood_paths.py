"""The ODE that a density is carried along, from data to noise, and the rate at which its logarithm falls.

Of x = alpha x0 + sigma eps it is written as flow matching has it, whatever the process: with z = x / (alpha +
sigma) and u = sigma / (alpha + sigma), which rises from nearly 0 to 1 at pure noise,

    dz/du = U = eps - D,     d log p(z) / du = -div_z U                (Song et al. 2021, eq. 13 and 39)

D being the network's estimate of x0 and z = (1 - u) D + u eps. It is the same ODE as in t, has no rates
of alpha and sigma in it, and is finite where alpha is 0.

Of CLD it is the probability flow ODE of (x, v) in t (Dockhorn et al. 2022):

    dx/dt = beta v / M,  dv/dt = -beta (x + Gamma v / M + Gamma s_v),  div = -beta Gamma (D / M + div_v s_v)

where x's own part of the divergence is 0, so that probes are drawn for v alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..networks.network import Condition, ScoreNetwork
from ..networks.parameterisation import Parameterisation
from ..networks.prediction import Velocity
from ..processes import CLD, VE, VP, GaussianProcess, Point
from .likelihood_divergence import Divergence, with_divergence

# (x [*state_shape] float64, at) -> the network's output there, float64, and the trace of its derivative
# in x (in v of CLD), [k] float64
Call = Callable[[Tensor, Point], tuple[Tensor, Tensor]]


class Part(NamedTuple):
    """What came of some samples.

    latents    [n, *state_shape] at the end
    integrals  of the divergence, [k, n] float64
    calls      of the network, of each sample
    """

    latents: Tensor
    integrals: Tensor
    calls: list[int]


class Path(Protocol):
    """The ODE in a variable that runs from `start` to `end`, of states of one sample."""

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float: ...

    @property
    def log_volume(self) -> float:
        """log |dx/dz| of an element at the end, less that at the start."""

    def enter(self, x: Tensor) -> Tensor:
        """The state of x at the start."""

    def leave(self, z: Tensor) -> Tensor:
        """The x of a state at the end."""

    def rate(self, s: float, z: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """dz/ds and its divergence [k]."""


def scale(at: Point) -> float:
    """alpha + sigma."""
    return at.alpha + at.sigma


def share(at: Point) -> float:
    """u = sigma / (alpha + sigma)."""
    return at.sigma / scale(at)


def divergence_at(network: Parameterisation, at: Point, size: int, trace: Tensor) -> Tensor:
    """div_z U of `size` elements, given the trace of the output's derivative in x.

    U = (z - D) / u with D = p x + q out, and x = (alpha + sigma) z.
    """
    (p,), q = network.weights(at)
    return (size - scale(at) * (p * size + q * trace)) / share(at)


@dataclass(frozen=True, eq=False)
class Straight:
    """That of a process of x alone, from one of its points up to another."""

    network: Parameterisation
    first: Point
    last: Point

    @property
    def start(self) -> float:
        return share(self.first)

    @property
    def end(self) -> float:
        return share(self.last)

    @property
    def log_volume(self) -> float:
        return math.log(scale(self.last) / scale(self.first))

    def enter(self, x: Tensor) -> Tensor:
        return x / scale(self.first)

    def leave(self, z: Tensor) -> Tensor:
        return z * scale(self.last)

    def at(self, u: float) -> Point:
        """The point of a share u. The ends are the process's own, to the last bit."""
        if u <= self.start:
            return self.first
        return self.last if u >= self.end else self.network.process.at_ratio(u / (1.0 - u))

    def rate(self, s: float, z: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        at = self.at(s)
        x = scale(at) * z
        out, trace = call(x, at)
        (p,), q = self.network.weights(at)
        return (z - (p * x + q * out)) / share(at), divergence_at(
            self.network, at, z.numel(), trace
        )


@dataclass(frozen=True, eq=False)
class Joint:
    """That of CLD's [x, v], from one of its times up to another."""

    network: Parameterisation
    first: Point
    last: Point

    @property
    def start(self) -> float:
        return self.first.t

    @property
    def end(self) -> float:
        return self.last.t

    @property
    def log_volume(self) -> float:
        return 0.0

    def enter(self, x: Tensor) -> Tensor:
        return x

    def leave(self, z: Tensor) -> Tensor:
        return z

    def rate(self, s: float, z: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        process, rule = self.network.process, self.network.rule
        assert isinstance(process, CLD) and isinstance(rule, Velocity)
        at = process.at(min(s, self.end))
        out, trace = call(z, at)
        on_v, on_out = rule.score(process, at.t)
        beta, gamma, mass = float(process.beta(at.t)), process.friction, process.mass
        x, v = z.chunk(2)
        of_v = gamma * (v / mass + on_v * v + on_out * out)
        stretch = gamma * (v.numel() * (1.0 / mass + on_v) + on_out * trace)
        return torch.cat((beta / mass * v, -beta * (x + of_v))), -beta * stretch


def path(network: Parameterisation, first: Point, last: Point) -> Path:
    """That of a network's process."""
    return (Joint if network.process.parts > 1 else Straight)(network, first, last)


@dataclass(frozen=True, eq=False)
class One:
    """Calls of a network for one sample, counted.

    condition   of the sample, with a batch axis of 1
    dtype       of the network's input
    divergence  of the sample
    """

    network: ScoreNetwork
    condition: Condition | None
    dtype: torch.dtype
    divergence: Divergence

    def __call__(self, x: Tensor, at: Point) -> tuple[Tensor, Tensor]:
        network, about = self.network, self.network.parameterisation
        c_in = about.c_in(at)
        label = torch.tensor([about.label_of(at)], dtype=torch.float64, device=x.device)

        def function(given: Tensor) -> Tensor:
            out = network(given, label.to(network.label_dtype), self.condition)[0]
            return out[:, : network.shape[0]]

        given = (c_in * x).to(self.dtype)[None].contiguous(memory_format=network.memory_format)
        out, trace = with_divergence(function, given, self.divergence)
        return out[0].double(), c_in * trace[:, 0]


def least_time(process: GaussianProcess) -> float:
    """1e-5 of score SDEs, as Song et al. 2021 (section 4.3) and CLD have it; else the process's own t_min."""
    return 1e-5 if isinstance(process, (VP, VE, CLD)) else process.t_min
