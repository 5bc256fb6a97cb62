"""Twisted diffusion sampling (Wu et al., NeurIPS 2023): sequential Monte Carlo of p(x0 | y).

K particles follow DDPM's steps p(x_t | x_s) = N(a x_s + b x0hat, c^2) with the estimate shifted by a twist,
log p~(y | x_s) = log N(y; A x0hat, sigma_y^2 + sigma^2 / (alpha^2 + sigma^2)) (section 3.2):

    q(x_t | x_s) = N(a x_s + b (x0hat + sigma^2 / alpha grad log p~(y | x_s)), c^2)
    w            = p(x_t | x_s) p~(y | x_t) / (q(x_t | x_s) p~(y | x_s))

and are drawn again by their weights where these have come to differ (algorithm 1). The last weights hold the
true p(y | x0), so that with K the particles' law comes to the posterior's, whatever the twist.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import checks
from ..executors.course import Course, Lead, Move, Seen
from ..networks.parameterisation import Parameterisation
from ..plan import Row
from ..plan.linear import normal, slot
from ..processes import Point
from ..sampler.led import Run
from ..solvers.base import finite_start, steps
from ..solvers.ddim import posterior_std, toward
from ..solvers.update import Update
from .conjugate import weighted
from .inverse import Estimate, InverseProblem
from .measured import refuse_given
from .sums import dot

GRADIENT = 1  # the channel block behind the estimate


@dataclass(frozen=True)
class TDS(InverseProblem):
    """The samples of a request are the particles of one group, and depend on one another.

    operator  as of InverseProblem
    sigma_y   standard deviation of the measurement's noise, above 0
    resample  the share of K below which the effective sample size has the particles drawn again, 0 to 1

    All particles follow the first one's measurement. Of the solver the times count alone.
    """

    name: ClassVar[str] = "tds"
    source: ClassVar[str] = "Wu et al. 2023 (TDS), algorithm 1"
    leads: ClassVar[bool] = True
    together = True
    slots: ClassVar[int] = 2
    sigma_y: float = 0.05
    resample: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not checks.number("sigma_y", self.sigma_y) > 0.0:
            raise ValueError(
                f"sigma_y={self.sigma_y:g}: weights need a likelihood; give a noise above 0"
            )
        if not 0.0 <= checks.number("resample", self.resample) <= 1.0:
            raise ValueError(
                f"resample={self.resample:g}: give a share of the particles, from 0 to 1"
            )

    def objection(self, network: Parameterisation, points: Sequence[Point]) -> str | None:
        return finite_start(network.process, points)

    def estimate(self, at: Estimate) -> tuple[Tensor, ...]:
        """x0 and grad log p~."""
        variance = self.sigma_y**2 + at.sigma**2 / (at.alpha**2 + at.sigma**2)
        return at.x0, at.pull(at.operator.adjoint(weighted(1.0 / variance, at.residual)))

    def courses(self, runs: Sequence[Run]) -> list[Course]:
        for run in runs:
            refuse_given(self, run)
        jobs = [run.seat(self.slots, blocks=1 + GRADIENT) for run in runs]
        return [Course(self._group(runs), jobs, samples=len(runs), length=len(runs[0].points))]

    def _group(self, runs: Sequence[Run]) -> Lead:
        run, weights = runs[0], Weights(len(runs), self.resample)
        given: Any = run.job.conditions[0]
        y = given["measurement"].double()[None]
        pairs = list(steps(run.points))
        rows = [self._row(run, s, t, i) for i, (s, t) in enumerate(pairs, 1)]
        seen = yield [Move(run.plan.rows[0], rows[0]) for run in runs]
        for i, (s, t) in enumerate(pairs):
            twist = self.sigma_y**2 + s.sigma**2 / (s.alpha**2 + s.sigma**2)
            log_p = [self._log_density(one, y, twist) for one in seen]
            weights.times(log_p)
            if (
                t.sigma == 0.0
            ):  # the last estimates are the samples, and y's true likelihood is theirs
                true = [self._log_density(one, y, self.sigma_y**2) for one in seen]
                weights.times([b - a for a, b in zip(log_p, true, strict=True)])
            chosen = weights.chosen(_uniform(seen[0], i + 1), last=i + 1 == len(pairs))
            made = [self._proposed(seen[k], s, t) for k in chosen]
            for one, (mean, shift) in zip(seen, made, strict=True):
                one.slots[1].copy_(mean)
                one.slots[1].add_(shift)
            if t.sigma > 0.0:
                c = posterior_std(s, t)
                drift = [
                    -dot(one.normal(i + 1), shift) / c - 0.5 * dot(shift, shift) / c**2
                    for one, (_, shift) in zip(seen, made, strict=True)
                ]
                weights.times([d - log_p[k] for d, k in zip(drift, chosen, strict=True)])
            then = rows[i + 1] if i + 1 < len(rows) else None
            seen = yield [Move(rows[i], then) for _ in runs]
        return {"resampled": weights.resampled, "effective": weights.effective}

    def _row(self, run: Run, s: Point, t: Point, key: int) -> Row:
        new = {0: slot(1) + posterior_std(s, t) * normal(0)}
        row = run.row(Update(s, new, t, raw=(0.0, 1.0)), key)
        if len(row.entries) > 1:
            raise ValueError(
                "driver 'tds' weighs by one estimate, and guidance mixes two: give guidance=1"
            )
        return row

    def _proposed(self, seen: Seen, s: Point, t: Point) -> tuple[Tensor, Tensor]:
        """The mean of p(x_t | x_s), and what the twist adds to it."""
        content = toward(s, t, posterior_std(s, t))[0]
        a, b = content["S0"], content["D"]
        mean = a * seen.x + b * seen.denoised
        if t.sigma == 0.0:
            return mean, torch.zeros_like(mean)
        return mean, b * s.sigma**2 / s.alpha * seen.outs[GRADIENT]

    def _log_density(self, seen: Seen, y: Tensor, variance: float) -> float:
        """log N(y; A x0hat, variance), up to a constant of y, [1, *measured] float64."""
        residual = self.made.residual(y, seen.denoised.double()[None])
        return -0.5 * (dot(residual, residual) / variance + residual.numel() * math.log(variance))


class Weights:
    """Log weights of K particles, and when they are drawn again."""

    def __init__(self, count: int, least: float) -> None:
        self._log, self._least = [0.0] * count, least * count
        self.resampled, self.effective = 0, []  # type: int, list[float]

    def times(self, log_w: Sequence[float]) -> None:
        """Multiplies each."""
        self._log = [a + b for a, b in zip(self._log, log_w, strict=True)]

    def chosen(self, u: float, last: bool) -> list[int]:
        """Of each place the particle that takes it, by systematic resampling; all keep theirs while the
        weights are even enough. A particle whose weight is not finite has none.

        u     uniform in [0, 1)
        last  whether no weights come after these
        """
        logs = [each if math.isfinite(each) else -math.inf for each in self._log]
        most = max(logs)
        w = [math.exp(each - most) if math.isfinite(most) else 1.0 for each in logs]
        effective = math.fsum(w) ** 2 / math.fsum(each * each for each in w)
        self.effective.append(effective)
        if not last and effective >= self._least:
            return list(range(len(w)))
        self._log, self.resampled = [0.0] * len(w), self.resampled + 1
        total, ends, sum_ = math.fsum(w), [], 0.0
        for each in w:
            sum_ += each / total
            ends.append(sum_)
        places = [(j + u) / len(w) for j in range(len(w))]
        return [next((k for k, end in enumerate(ends) if p < end), len(w) - 1) for p in places]


def _uniform(seen: Seen, key: int) -> float:
    """One of the first particle's seed and a row's key."""
    z = float(seen.normal(key, 1).flatten()[0])
    return min(0.5 * math.erfc(-z / math.sqrt(2.0)), math.nextafter(1.0, 0.0))
