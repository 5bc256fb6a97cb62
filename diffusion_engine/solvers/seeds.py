"""SEEDS: singlestep exponential solvers of the reverse SDE in lam, on `denoised`, at points of their own.

h = (1 + eta) (lam_t - lam_s) in the exponents. All states of a step have the noise of one path, of which each
call draws its part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..processes import GaussianProcess
from .base import Points, Update, first_order_only, steps
from .dpmpp import DATA, check_variant, second_weight
from .dpmpp_sde import Stochastic
from .singlestep import Spread, walked


@dataclass(frozen=True)
class Seeds(Stochastic):
    """What both share, with eta and s_noise of solvers of the reverse SDE."""

    def shares(self) -> tuple[float, ...]:
        """Where the calls within a step lie, as shares of h."""
        raise NotImplementedError

    def weights(self, h: float) -> list[list[float]]:
        """Of m - m_s in the state at each call and at t, by its alpha."""
        raise NotImplementedError

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        spread = Spread(self.eta, self.s_noise)
        for s, t in steps(points):
            if first_order_only(s, t):
                yield from walked(s, [t], spread, DATA, [[]])
                continue
            h = t.lam - s.lam
            ends = [process.at_lam(s.lam + r * h) if r < 1.0 else t for r in self.shares()] + [t]
            taken = [
                [end.alpha * weight for weight in weights]
                for end, weights in zip(ends, self.weights((1.0 + self.eta) * h), strict=True)
            ]
            yield from walked(s, ends, spread, DATA, taken)


@dataclass(frozen=True)
class SEEDS2(Seeds):
    """Two calls a step, the second at the share r of it: x_t has alpha_t (1 - e^-h) (x0 + w (x0_r - x0) / r).

    eta      amount of noise, 0 for the ODE
    s_noise  multiplies the noise
    r        where the second call lies, above 0 to 1
    variant  (1 - e^-h) w: "midpoint", half of 1 - e^-h, or "heun", 1 - (1 - e^-h) / h
    """

    name: ClassVar[str] = "seeds_2"
    source: ClassVar[str] = "Gonzalez et al. 2023 (SEEDS-2), on x0; ComfyUI"
    calls: ClassVar[int] = 2
    order = 2
    r: float = 0.5
    variant: str = "midpoint"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variant(self.variant)
        if not 0.0 < self.r <= 1.0:
            raise ValueError(
                f"r={self.r:g}: the second call lies above 0 and at most at 1 of a step"
            )

    def shares(self) -> tuple[float, ...]:
        return (self.r,)

    def weights(self, h: float) -> list[list[float]]:
        return [[], [second_weight(h, self.variant) / self.r]]


@dataclass(frozen=True)
class SEEDS3(Seeds):
    """Three calls a step, at s and at the shares r_1 and r_2 of it: x_t takes the differences of the third.

    With noise the law is of second order, which is all that additive noise of one normal a call gives.

    eta      amount of noise, 0 for the ODE
    s_noise  multiplies the noise
    r_1, r_2  where the second and the third call lie, 0 < r_1 < r_2 <= 1; r_2 = 2 / 3 is third order
              without noise, another is second
    """

    name: ClassVar[str] = "seeds_3"
    source: ClassVar[str] = "Gonzalez et al. 2023 (SEEDS-3), on x0; ComfyUI"
    calls: ClassVar[int] = 3
    r_1: float = 1.0 / 3.0
    r_2: float = 2.0 / 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.r_1 < self.r_2 <= 1.0:
            raise ValueError(f"r_1={self.r_1:g} and r_2={self.r_2:g}: give 0 < r_1 < r_2 <= 1")

    @property
    def order(self) -> int:
        third = abs(self.r_2 - 2.0 / 3.0) < 1e-9 and not self.stochastic
        return 3 if third else 2

    def shares(self) -> tuple[float, ...]:
        return self.r_1, self.r_2

    def weights(self, h: float) -> list[list[float]]:
        middle = second_weight(self.r_2 * h, "heun") / (self.r_1 / self.r_2)
        return [[], [middle], [0.0, second_weight(h, "heun") / self.r_2]]
