"""One row as a solver writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .. import checks
from ..linear import Linear
from ..processes import Point


@dataclass(frozen=True)
class Update:
    """One row as a solver writes it: call the network at a point, then renew the slots.

    at       the law of the state the network reads
    new      slot -> new content, in terms of old slots, `denoised`, `raw` and normals
    state    the law of slot 0 afterwards; None while it holds a partial sum
    read     the slots the network reads, one or two
    churn    standard deviation of noise put into slot 0 before the call
    raw      `raw` is the sum of these weights times the network's channel blocks 0, 1, ...
    learned  (v0, v1, block): normals are multiplied by exp(v0 + v1 times that channel block)
    slope    `raw` is d eps / dg along the ODE, in the form the network offers it, in place of `raw=`
    span     with noise="brownian", the interval of the sample's path whose increment the churn, or else
             normal 0, is; None: for every normal that from the last complete state to `state`

    Raises ValueError where `at` is no point, or `new` no mapping of slots to what they become.
    """

    at: Point
    new: dict[int, Linear]
    state: Point | None
    read: tuple[int, ...] = (0,)
    churn: float = 0.0
    raw: tuple[float, ...] = ()
    learned: tuple[float, float, int] | None = None
    slope: bool = False
    span: tuple[Point, Point] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.at, Point):
            raise ValueError(f"Update(at={checks.said(self.at)}): give the point of the call")
        written = self.new.values() if isinstance(self.new, Mapping) else (None,)
        if not all(isinstance(content, Linear) for content in written):
            raise ValueError(
                f"Update(new={checks.said(self.new)}): give slot -> its new content, written with x, "
                "denoised, slot(k), normal(m) and raw, as {0: 0.5 * x + 0.5 * denoised}"
            )

    @property
    def blocks(self) -> int:
        """How many channel blocks the row takes from the network; block 0 is its prediction."""
        return max(1, len(self.raw), 1 + self.learned[2] if self.learned else 0)
