"""Steps of diffusers' schedulers that are not the formula's, for whoever wants the same picture.

Both go from t to t - stride, whatever the next time of the run is, and go on as if they were there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

from ... import checks
from ...plan.linear import Linear, denoised, slot, x
from ...processes import GaussianProcess, Point
from ...solvers import Points, Solver, Update, eps_of, steps
from ...solvers.adams import BASHFORTH
from ...solvers.ddim import DDIM
from ...solvers.sa_solver import SASolver


def stride_end(process: GaussianProcess, t: float, points: Points) -> Point:
    """The point of a time, or the end of the run for one below 0."""
    return process.at(t) if t >= 0.0 else points[-1]


@dataclass(frozen=True)
class StridedDDIM(DDIM):
    """DDIM whose steps lead from t to t - stride.

    stride  num_train_timesteps // n; a time below 0 is the end of the run
    """

    name: ClassVar[str] = "strided_ddim"
    source: ClassVar[str] = "diffusers' DDIMScheduler"
    exact: ClassVar[bool] = False
    keeps_noise: ClassVar[bool] = False
    stride: int = 1

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            (update,) = super().updates(
                process, [s, stride_end(process, s.t - self.stride, points)]
            )
            yield replace(update, state=t)


def along(s: Point, t: Point, state: Linear, eps: Linear) -> Linear:
    """DDIM from s to t along an eps."""
    scale = t.alpha / s.alpha
    return scale * state + (t.sigma - scale * s.sigma) * eps


@dataclass(frozen=True)
class StridedPLMS(Solver):
    """PLMS whose steps lead from t to t - stride, its first, of two calls, from the second time + stride.

    stride  num_train_timesteps // n; a time below 0 is the end of the run
    mixes   "eps", or "v", whose mixture becomes the eps of the step's beginning
    cut     of a run that begins within another: the first step's second call is told the second time, and
            the second step, whose call that would be, is left out
    """

    name: ClassVar[str] = "strided_plms"
    source: ClassVar[str] = "diffusers' PNDMScheduler"
    exact: ClassVar[bool] = False
    keeps_noise: ClassVar[bool] = False
    order = 2
    stride: int = 1
    mixes: str = "eps"
    cut: bool = False

    def __post_init__(self) -> None:
        checks.one_of("mixes", self.mixes, ("eps", "v"))

    def said(self, at: Point, state: Linear = x) -> Linear:
        """What is kept of a prediction."""
        eps = eps_of(at, state)
        return eps if self.mixes == "eps" else at.alpha * eps - at.sigma * denoised

    def step(self, s: Point, t: Point, mixture: Linear) -> Linear:
        eps = mixture if self.mixes == "eps" else s.alpha * mixture + s.sigma * x
        return along(s, t, x, eps)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        past: list[int] = []  # slots, the newest first
        pairs = list(pairwise(points))
        after = points[
            1 + (self.cut and len(pairs) > 1)
        ]  # where the second call's step counts as ended
        for i, (s, t) in enumerate([pairs[0], *pairs[1 + self.cut :]]):
            end = stride_end(process, s.t - self.stride, points)
            weights = BASHFORTH[len(past)]
            mixture = weights[0] * self.said(s)
            for weight, k in zip(weights[1:], past, strict=True):
                mixture = mixture + weight * slot(k)
            kept = 1 + i % 3
            past = [kept, *(k for k in past if k != kept)][:3]
            if i > 0 or len(points) == 2:
                yield Update(s, {0: self.step(s, end, mixture), kept: self.said(s)}, t)
                continue
            # Slot 2 holds the end of the first step until the second call has been made there.
            yield Update(s, {1: self.said(s), 2: self.step(s, end, mixture)}, None)
            mean = 0.5 * slot(1) + 0.5 * self.said(t, slot(2))
            begin = stride_end(process, t.t + self.stride, points)
            yield Update(t, {0: self.step(begin, t, mean)}, after, read=(2,))


@dataclass(frozen=True)
class TimedSASolver(SASolver):
    """SA-Solver with a tau of its own in every step.

    levels  sigma / alpha of the points of a run
    taus    of the step that begins at each
    """

    name: ClassVar[str] = "timed_sa_solver"
    source: ClassVar[str] = "diffusers' SASolverScheduler"
    levels: tuple[float, ...] = ()
    taus: tuple[float, ...] = ()

    @property
    def stochastic(self) -> bool:
        return any(tau > 0.0 for tau in self.taus)

    def tau(self, s: Point, t: Point) -> float:
        return self.taus[self.levels.index(s.ratio)]
