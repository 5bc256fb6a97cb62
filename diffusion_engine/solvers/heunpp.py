"""Heun++: slopes at the next two points, weighed by their noise levels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..plan.linear import denoised, slot, x
from ..processes import GaussianProcess, Point
from .base import Points, Update, transfer
from .coordinates import Coordinates, check, coordinates
from .euler import Churned


@dataclass(frozen=True)
class HeunPP2(Churned):
    """The step along w1 d + w2 d2 + w3 d3, slopes here and two Euler steps on; w2 and w3 are a third of their
    levels over the greatest, and w1 what is left to 1.

    The last step but one has two calls, and halves in place of thirds; the last is Euler's.

    s_churn, s_tmin, s_tmax, s_noise, churn_limit  noise before each step, as of 'heun'
    coordinates  "edm", "flow" or "auto", as of 'gradient_estimation'
    """

    name: ClassVar[str] = "heunpp2"
    source: ClassVar[str] = "Carzit 2023 (sd-webui-samplers-scheduler); ComfyUI"
    calls: ClassVar[int] = 3
    coordinates: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.coordinates)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        frame = coordinates(self.coordinates, points)
        top = max((p for p in points if frame.finite(p)), key=frame.level, default=points[0])
        for i, start in enumerate(points[:-1]):
            s, churn = self.churn(process, start, len(points) - 1)
            ahead = points[i + 1 : i + 4]
            if len(ahead) > 1 and frame.finite(s, *ahead[:-1]):
                first, *rest = self.step(frame, top, s, ahead[:-1])
            else:
                first, rest = Update(s, {0: transfer(s, ahead[0], x, denoised)}, ahead[0]), []
            yield Update(s, first.new, first.state, churn=churn, span=(start, ahead[0]))
            yield from rest

    def step(self, frame: Coordinates, top: Point, s: Point, calls: Points) -> Iterator[Update]:
        """From s to calls[0], with calls there and perhaps at the next point; the level of `top` weighs 1.

        Slot 0 sums up the end, slot 1 goes ahead.
        """
        t = calls[0]
        weights = [frame.level(p) / frame.level(top) / (1 + len(calls)) for p in calls]
        way = frame.scale(t) * (frame.level(t) - frame.level(s))
        ahead = transfer(s, t, x, denoised)
        here = math.fsum([1.0, *(-w for w in weights)])
        partial = frame.scale(t) / frame.scale(s) * x + way * here * frame.slope(s, x)
        yield Update(s, {0: partial, 1: ahead}, None)
        for i, (p, weight) in enumerate(zip(calls, weights, strict=True)):
            new = {0: x + way * weight * frame.slope(p, slot(1))}
            if i + 1 < len(calls):
                new[1] = transfer(p, calls[i + 1], slot(1), denoised)
            yield Update(p, new, t if i + 1 == len(calls) else None, read=(1,))
