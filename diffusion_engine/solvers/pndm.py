"""PNDM: pseudo multistep solvers on eps, with a pseudo Heun or Runge-Kutta start."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan.linear import Linear, denoised, slot, x
from ..processes import GaussianProcess, Point
from .adams import IPNDM, ddim_weights
from .base import Points, Ring, Solver, Update, eps_of, finite_start, steps, transfer

MIXES = ("eps", "v")


def kept(mixes: str, at: Point, state: Linear = x) -> Linear:
    """eps, or v = alpha eps - sigma x0, of a call."""
    if mixes == "eps":
        return eps_of(at, state)
    return (at.alpha * state - denoised) / at.sigma


def moved(mixes: str, s: Point, t: Point, change: Linear) -> Linear:
    """The state at t: alpha_t / alpha_s x + change, mixed calls times sigma_t - alpha_t / alpha_s sigma_s.

    A mixed v is read as eps = alpha_s v + sigma_s x.
    """
    scale = t.alpha / s.alpha
    if mixes == "eps":
        return scale * x + change
    return (scale + (t.sigma - scale * s.sigma) * s.sigma) * x + s.alpha * change


def preserving(mixes: str, points: Points) -> str | None:
    """The objection of mixed v."""
    sizes = [p.alpha**2 + p.sigma**2 for p in points]
    if mixes == "v" and not all(math.isclose(size, 1.0, abs_tol=1e-6) for size in sizes):
        return "mixes='v' is for alpha^2 + sigma^2 = 1, which this process does not keep; use 'eps'"
    return None


@dataclass(frozen=True)
class PLMS(IPNDM):
    """Pseudo linear multistep: iPNDM's weights after one pseudo improved-Euler step (Liu et al. 2022).

    The first step calls the network twice, as latent diffusion does. Options are ipndm's; with variable=True
    the order is 3.

    mixes  what is extrapolated, "eps", or "v", read as that of the newest call: first order
    """

    name: ClassVar[str] = "plms"
    source: ClassVar[str] = "Liu et al. 2022 (PNDM), algorithm 2; latent diffusion"
    differs: ClassVar[str] = (
        "of networks that predict v each call's eps is mixed, where diffusers mixes v (mixes='v')"
    )
    start: str = "heun"
    mixes: str = "eps"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("mixes", self.mixes, MIXES)

    @property
    def order(self) -> int:
        return super().order if self.mixes == "eps" else 1

    @property
    def asymptotic(self) -> int:
        return super().asymptotic if self.mixes == "eps" else 1

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return super().exact and self.mixes == "eps"

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return super().objection(parameterisation, points) or preserving(self.mixes, points)

    def predicted(self, at: Point, state: Linear = x) -> Linear:
        return kept(self.mixes, at, state)

    def moved(self, s: Point, t: Point, change: Linear) -> Linear:
        return moved(self.mixes, s, t, change)


@dataclass(frozen=True)
class PNDM(Solver):
    """Pseudo linear multistep after three pseudo Runge-Kutta steps of four calls (Liu et al. 2022).

    A Runge-Kutta step is the classical one in t, each of its moves a DDIM transfer.

    mixes      what is mixed, "eps", or "v", read as that of the step's first call: first order
    published  half a step is a whole number of timesteps, rounded down: over an odd number diffusers leads
               the state that far from the step's start, and tells the network of as far from its end
    """

    name: ClassVar[str] = "pndm"
    source: ClassVar[str] = "Liu et al. 2022 (PNDM), algorithm 2, F-PNDM"
    differs: ClassVar[str] = (
        "of networks that predict v each call's eps is mixed, where diffusers mixes v (mixes='v'); the "
        "middle of an odd number of timesteps is between two, where diffusers takes both (published=True)"
    )
    mixes: str = "eps"
    published: bool = False

    def __post_init__(self) -> None:
        checks.one_of("mixes", self.mixes, MIXES)

    @property
    def order(self) -> int:
        return 2 if self.mixes == "eps" else 1

    @property
    def asymptotic(self) -> int:
        return 4 if self.mixes == "eps" else 1

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return self.mixes == "eps" and not self.published

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return finite_start(parameterisation.process, points) or preserving(self.mixes, points)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(3)
        for i, (s, t) in enumerate(steps(points)):
            newest = kept(self.mixes, s)
            if i < 3 and t.sigma > 0.0:
                yield from self.runge_kutta(process, s, t, ring.store(s))
                continue
            first, *weights = ddim_weights(process, [s, *(at for at, _ in ring.past)], t)
            change = first * newest
            for c, (_, e) in zip(weights, ring.past, strict=True):
                change = change + c * e
            new = {0: moved(self.mixes, s, t, change)}
            if i + 2 < len(points):
                new[ring.store(s)] = newest
            yield Update(s, new, t)

    def runge_kutta(self, process: GaussianProcess, s: Point, t: Point, k: int) -> Iterator[Update]:
        """Slot k keeps the first call for the steps to come, slot 4 has what the network reads next."""
        told, reached = self.middles(process, s, t)
        whole, half = (u.sigma - u.alpha / s.alpha * s.sigma for u in (t, told))
        yield Update(s, {k: kept(self.mixes, s), 4: transfer(s, reached, x, denoised)}, None)
        second = kept(self.mixes, told, slot(4))
        yield Update(told, {4: moved(self.mixes, s, told, half * second)}, None, read=(4,))
        third = kept(self.mixes, told, slot(4))
        # Slot 4 is still what the second call led to, and so tells that call.
        known = (slot(4) - moved(self.mixes, s, told, Linear())) / half
        if self.mixes == "v":
            known = known / s.alpha
        change = whole / 6.0 * (slot(k) + 2.0 * known + 2.0 * third)
        new = {0: moved(self.mixes, s, t, change), 4: moved(self.mixes, s, t, whole * third)}
        yield Update(told, new, None, read=(4,))
        last = whole / 6.0 * kept(self.mixes, t, slot(4))
        yield Update(t, {0: x + (last if self.mixes == "eps" else s.alpha * last)}, t, read=(4,))

    def middles(self, process: GaussianProcess, s: Point, t: Point) -> tuple[Point, Point]:
        """Where the second and third call are told to be, and where the first leads."""
        if not self.published:
            middle = process.at(0.5 * (s.t + t.t))
            return middle, middle
        half = (s.t - t.t) // 2.0
        return process.at(t.t + half), process.at(s.t - half)
