"""ER-SDE: multistep solvers of the extended reverse-time SDE, whose noise a function phi of g says.

The step from s to t in g = sigma / alpha, where phi(g) = g psi(g)^eta and q = (psi_t / psi_s)^eta:

    x_t = sigma_t / sigma_s q x + alpha_t (1 - phi_t / phi_s) x0 + sigma_t sqrt(1 - q^2) z

psi = 1 is the probability flow ODE, psi = g the reverse SDE. Any psi that rises with g keeps the law of x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan.linear import Linear, denoised, normal, x
from ..processes import GaussianProcess, Point
from .adams import NODES, WEIGHTS
from .base import Points, Ring, Solver, Update, first_order_only, steps, transfer

# psi of the paper's names; its SDE_2 and SDE_3 are "sde" with eta=0.5 and 1.5.
SCALERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sde": lambda g: g,
    "sde_1": lambda g: np.exp(-1.0 / g) + 10.0,
    "sde_4": lambda g: np.log10(1.0 + 100.0 * g**1.5) / g**0.1,
    "sde_5": lambda g: np.exp(g**0.3) + 10.0,
}


@dataclass(frozen=True)
class ERSDE(Solver):
    """The step above, and the Taylor terms of x0 in g: alpha_t (c1 D1 + c2 D2) of earlier predictions.

    c_k = (g_t - g_s)^k / k! - phi_t int_s^t (g - g_s)^(k - 1) / ((k - 1)! phi(g)) dg. A subclass may write
    its own psi(g).

    noise_scaler  psi by the paper's name: "sde", g; "sde_1", e^(-1 / g) + 10; "sde_4",
                  log10(1 + 100 g^1.5) / g^0.1; "sde_5", e^(g^0.3) + 10
    eta        the power of psi: 0 for the ODE, 1 as published
    s_noise    multiplies the noise
    max_order  1 to 3, the predictions a step takes; the first steps take those there are
    variant    D1 is "published", the difference of the newest two predictions, or "newton", that difference
               carried to s by D2: then order 3 is third without noise
    terms      0 takes the integrals exactly; so many terms are a sum in their place, ComfyUI's 200
    """

    name: ClassVar[str] = "er_sde"
    source: ClassVar[str] = "Cui et al. 2023 (ER-SDE), solvers 1 to 3"
    differs: ClassVar[str] = (
        "the integrals of 1 / phi are exact, where the published code sums 100 terms and ComfyUI's 200 "
        "(terms=200); pure noise is left by a step of first order, at which ComfyUI moves the first sigma"
    )
    noise_scaler: str = "sde_5"
    eta: float = 1.0
    s_noise: float = 1.0
    max_order: int = 3
    variant: str = "published"
    terms: int = 0

    def __post_init__(self) -> None:
        checks.one_of("noise_scaler", self.noise_scaler, tuple(SCALERS))
        checks.one_of("variant", self.variant, ("published", "newton"))
        if self.eta < 0.0:
            raise ValueError(f"eta={self.eta:g}: an amount of noise is 0 or above")
        if self.max_order not in (1, 2, 3):
            raise ValueError(f"max_order={self.max_order!r}: {self.name} has orders 1 to 3")

    @property
    def order(self) -> int:
        return min(self.max_order, 2)  # the first step is of first order

    @property
    def asymptotic(self) -> int:
        third = self.variant == "newton" and not self.stochastic
        return self.max_order if third else self.order

    @property
    def stochastic(self) -> bool:
        return self.eta > 0.0

    def psi(self, g: np.ndarray) -> np.ndarray:
        """What rises with g, also to infinity; phi is g times its power eta."""
        return SCALERS[self.noise_scaler](g)

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        for s, t in steps(points):
            if self.stochastic and t.sigma > 0.0 and not self.kept(s, t) <= 1.0 + 1e-12:
                return (
                    f"psi of noise_scaler={self.noise_scaler!r} does not rise with the level between "
                    f"sigma / alpha = {t.ratio:g} and {s.ratio:g}, and its noise would be less than none; "
                    "use 'sde_5', or other levels"
                )
        return None

    def kept(self, s: Point, t: Point) -> float:
        """q, the share of sigma_t that the old noise keeps."""
        if not self.eta:
            return 1.0
        after, before = self.psi(np.array([t.ratio, s.ratio]))
        return float(after / before) ** self.eta

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(self.max_order - 1)
        for i, (s, t) in enumerate(steps(points)):
            q = self.kept(s, t) if t.sigma > 0.0 else 0.0
            down = Point(t.t, t.alpha, t.sigma * q)
            noise = t.sigma * math.sqrt(max(1.0 - q * q, 0.0)) * self.s_noise
            new = transfer(s, down, x, denoised) + noise * normal(0)
            if ring.past and not first_order_only(s, t):
                new = new + self.taylor(s, t, ring)
            last = i + 2 == len(points) or not ring.size
            yield Update(s, {0: new} | ({} if last else {ring.store(s): denoised}), t)

    def taylor(self, s: Point, t: Point, ring: Ring) -> Linear:
        """alpha_t (c1 D1 + c2 D2)."""
        (s1, m1), *older = ring.past
        c1, c2 = self.integrals(s, t)
        d1 = (denoised - m1) / (s.ratio - s1.ratio)
        if not older:
            return t.alpha * c1 * d1
        s2, m2 = older[0]
        d2 = (d1 - (m1 - m2) / (s1.ratio - s2.ratio)) * (2.0 / (s.ratio - s2.ratio))
        if self.variant == "newton":
            d1 = d1 + 0.5 * (s.ratio - s1.ratio) * d2
        return t.alpha * (c1 * d1 + c2 * d2)

    def integrals(self, s: Point, t: Point) -> tuple[float, float]:
        """c1 and c2, of exact integrals in log g or of sums over g."""
        h = t.ratio - s.ratio
        if self.terms:
            g = t.ratio - h * np.arange(self.terms) / self.terms
            weights = -h / self.terms / (g * self.psi(g) ** self.eta)
        else:
            span = math.log(s.ratio / t.ratio)
            g = t.ratio * np.exp(0.5 * span * (NODES + 1.0))
            weights = 0.5 * span * WEIGHTS / self.psi(g) ** self.eta
        phi = t.ratio * float(self.psi(np.array([t.ratio]))[0]) ** self.eta
        first, second = float(weights.sum()), float(((g - s.ratio) * weights).sum())
        return h + phi * first, 0.5 * h * h + phi * second
