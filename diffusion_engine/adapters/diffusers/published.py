"""Steps of diffusers' schedulers that are not the formula's, for whoever wants the same picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from ...processes import GaussianProcess, Point
from ...solvers import Points, Update, steps
from ...solvers.ddim import DDIM


@dataclass(frozen=True)
class StridedDDIM(DDIM):
    """DDIM whose steps lead from t to t - stride, whatever the next time of the run is.

    Every step goes on as if the state were at the run's next time.

    stride  num_train_timesteps // n; a time below 0 is the end of the run
    """

    name: ClassVar[str] = "strided_ddim"
    source: ClassVar[str] = "diffusers' DDIMScheduler"
    exact: ClassVar[bool] = False
    keeps_noise: ClassVar[bool] = False
    stride: int = 1

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            (update,) = super().updates(process, [s, self.end(process, s, points)])
            yield replace(update, state=t)

    def end(self, process: GaussianProcess, s: Point, points: Points) -> Point:
        """Where the step from s leads."""
        return process.at(s.t - self.stride) if s.t >= self.stride else points[-1]
