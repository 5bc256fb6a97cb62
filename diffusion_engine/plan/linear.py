"""Linear combinations of what a row may use: old slots, denoised, raw and fresh normals.

Solvers write their updates with these symbols as a paper does; a row stores the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """sum of weight x symbol; symbols are "S0" ... "S4", "D" (denoised), "raw", "z0", "z1";
    in a solver's update also "eps" and "U" (uncond), which the network's parameterisation turns into S and
    raw."""

    weights: tuple[tuple[str, float], ...] = ()

    def __add__(self, other: Linear) -> Linear:
        if not isinstance(other, Linear):
            return NotImplemented
        total = dict(self.weights)
        for symbol, weight in other.weights:
            total[symbol] = total.get(symbol, 0.0) + weight
        return Linear(tuple(total.items()))

    def __mul__(self, factor: float) -> Linear:
        if isinstance(factor, Linear):
            raise ValueError(
                f"({self}) * ({factor}): an update is linear, and a symbol is multiplied by numbers alone"
            )
        # A factor of 0 removes the term, also where a weight is infinite.
        if factor == 0.0:
            return Linear()
        return Linear(tuple((symbol, weight * float(factor)) for symbol, weight in self.weights))

    __rmul__ = __mul__

    def __neg__(self) -> Linear:
        return self * -1.0

    def __sub__(self, other: Linear) -> Linear:
        return self + (-other)

    def __truediv__(self, divisor: float) -> Linear:
        return Linear(tuple((symbol, weight / float(divisor)) for symbol, weight in self.weights))

    def __getitem__(self, symbol: str) -> float:
        return dict(self.weights).get(symbol, 0.0)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter((symbol, weight) for symbol, weight in self.weights if weight != 0.0)

    @property
    def finite(self) -> bool:
        return all(math.isfinite(weight) for _, weight in self.weights)

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> Linear:
        """The combination of a mapping symbol -> weight."""
        return cls(tuple((symbol, float(weight)) for symbol, weight in weights.items()))

    def __str__(self) -> str:
        return said(self)


def slot(k: int) -> Linear:
    """The old content of slot k."""
    return Linear(((f"S{k}", 1.0),))


def normal(m: int) -> Linear:
    """A fresh standard normal of the row, m = 0 or 1."""
    return Linear(((f"z{m}", 1.0),))


# The state before the row: slot 0.
x = slot(0)
# The estimate of x0 that the row's network call gives, clipped where that is asked for.
denoised = Linear((("D", 1.0),))
# The network's output as it is, all channel blocks by the update's weights `raw`.
raw = Linear((("raw", 1.0),))
unclipped_eps = Linear((("eps", 1.0),))  # what the network says, where clipping changes `denoised`
# The estimate of x0 of the branch without a condition alone, unclipped; `denoised` where that is not called.
uncond = Linear((("U", 1.0),))


def said(terms: Iterable[tuple[str, float]]) -> str:
    """A sum as one reads it: 2 S0 - 0.5 D."""
    return " + ".join(f"{w:.6g} {symbol}" for symbol, w in terms if w).replace("+ -", "- ") or "0"
