"""Solvers as users write them."""

import math
from dataclasses import dataclass, field

from diffusion_engine import SOLVERS
from diffusion_engine.solvers import (
    Solver,
    Update,
    denoised,
    eps_of,
    normal,
    slot,
    steps,
    transfer,
    x,
)


class Plain:
    """Euler's method, as "euler" has it."""

    def updates(self, process, points):
        for s, t in steps(points):
            yield Update(s, {0: transfer(s, t, x, denoised)}, t)


class Midpoint:
    """As "dpm_2"; a list in place of a generator."""

    def updates(self, process, points):
        made = []
        for s, t in steps(points):
            if 0.0 in (s.alpha, t.sigma):
                made.append(Update(s, {0: transfer(s, t, x, denoised)}, t))
                continue
            u = process.at_lam(0.5 * (s.lam + t.lam))
            slope = (slot(1) / u.alpha - denoised) / u.ratio
            end = t.alpha * (x / s.alpha + (t.ratio - s.ratio) * slope)
            made.append(Update(s, {1: transfer(s, u, x, denoised)}, None))
            made.append(Update(u, {0: end}, t, read=(1,)))
        return made


class Noisy:
    """As "ddpm"; with sign=-1 of mirrored noise."""

    def __init__(self, sign=1.0):
        self.sign = sign

    def updates(self, process, points):
        for s, t in steps(points):
            c = t.sigma * math.sqrt(-math.expm1(2.0 * (s.lam - t.lam))) if t.sigma else 0.0
            mean = t.alpha * denoised + math.sqrt(t.sigma**2 - c**2) * eps_of(s)
            yield Update(s, {0: mean + self.sign * c * normal(0)}, t)


@dataclass(frozen=True)
class Scaled(Solver):
    """A subclass with options, one of which JSON does not hold; it does not keep x0."""

    factor: float = 1.0
    top: float = math.inf
    weights: tuple[float, ...] = (1.0, 2.0)
    rule: object = field(default_factory=object)
    exact = False

    def updates(self, process, points):
        for s, t in steps(points):
            yield Update(s, {0: transfer(s, t, self.factor * x, denoised)}, t)


class Kin(SOLVERS["heun"]):
    """A subclass of a shipped solver that says no name."""

    def updates(self, process, points):
        return Plain().updates(process, points)
