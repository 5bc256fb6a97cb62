"""One row of figures: a network, a solver, a number of steps, and the samples that they make."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from .. import checks
from ..executors import Executor
from ..networks.network import ScoreNetwork
from ..sampler import defaults
from ..sampler.sampler import Sampler
from ..solvers import Solver
from .features import SHAPE, describe
from .quality import Quality, quality
from .reference import Reference

SAMPLES = 2_000
BATCH = 100  # samples a call: ten of each digit
Row = dict[str, Any]

# What tells rows apart, and then what was found.
ASKED = ("model", "weights", "solver", "steps", "grid", "guidance", "n", "seed")
FOUND = (
    "calls", "evaluations", "frechet", "frechet_spread", "precision", "precision_spread", "recall",
    "recall_spread", "accuracy", "accuracy_spread", "seconds", "executor",
)  # fmt: skip
COLUMNS = (*ASKED, *FOUND)


@dataclass(frozen=True, eq=False)
class Case:
    """What one row asks for.

    network   of digits, 32x32
    solver    and what it is written as
    steps     of the grid; None leaves the network its own times
    guidance  1 for none
    n         samples, seeds `seed` on, the digits in turn
    options   of Sampler beside these: grid, end, guider, ...
    weights   what tells other weights of the same name apart
    """

    network: ScoreNetwork
    solver: Solver
    written: str
    steps: int | None
    guidance: float = 1.0
    n: int = SAMPLES
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""

    def __post_init__(self) -> None:
        checks.whole("n", self.n, 2, "a covariance takes some thousands of samples")
        checks.whole("seed", self.seed, 0, "the first seed is 0 or more")
        if self.network.shape not in (SHAPE, (2, *SHAPE[1:])):
            raise ValueError(
                f"the network {self.network.name!r} makes samples of the shape {list(self.network.shape)}, "
                f"and only digits of {list(SHAPE)} are evaluated; choose a network of digits"
            )

    @property
    def asked(self) -> list[int] | None:
        """The digit of each sample; None of a network without classes."""
        classes = self.network.classes
        return None if classes is None else [i % classes for i in range(self.n)]

    @cached_property
    def intervals(self) -> int:
        """Of its grid."""
        return len(self.sampler().points) - 1

    @property
    def key(self) -> Row:
        """What tells its row apart."""
        own = defaults.asked(self.network, solver=self.solver, steps=self.steps).get("grid")
        values = (
            self.network.name, self.weights, self.written, self.intervals,
            str(self.options.get("grid") or own or ""), self.guidance, self.n, self.seed,
        )  # fmt: skip
        return dict(zip(ASKED, values, strict=True))

    def sampler(self, **how: Any) -> Sampler:
        """What makes its samples."""
        asked = {"guidance": self.guidance, "batch_size": BATCH} | dict(self.options) | how
        return Sampler(self.network, self.solver, self.steps, **asked)


@dataclass(frozen=True, eq=False)
class Made:
    """Samples of a case, its network calls, and the seconds that they took."""

    samples: Tensor
    calls: int
    evaluations: int
    seconds: float


def make(sampler: Sampler, case: Case, progress: bool = False) -> Made:
    """The samples of a case."""
    began = time.perf_counter()
    found = sampler.sample(
        seeds=range(case.seed, case.seed + case.n), condition=case.asked, progress=progress
    )
    return Made(found.samples, found.nfe, found.evaluations, time.perf_counter() - began)


def measured(case: Case, made: Made, reference: Reference) -> Quality:
    """The figures of a case's samples."""
    return quality(describe(made.samples), reference, case.asked)


def row(case: Case, made: Made, found: Quality, executor: str) -> Row:
    """A case and what was found, as a line of a table."""
    figures: list[float | None] = []
    for each in (found.frechet, found.precision, found.recall, found.accuracy):
        figures += [None, None] if each is None else [each.value, each.spread]
    per_sample = made.evaluations / found.count
    values = (made.calls, per_sample, *figures, round(made.seconds, 1), executor)
    return case.key | dict(zip(FOUND, values, strict=True))


@dataclass(frozen=True, eq=False)
class Pace:
    """How the network of some cases is run, and the seconds of one evaluation of it for one sample.

    executor  which all of their samplers share, with what it recorded of the network
    """

    name: str
    executor: Executor
    seconds: float


def pace_of(cases: Sequence[Case], executors: Sequence[str], **how: Any) -> Pace:
    """The first executor that runs the network of these cases, and how long that takes.

    Measured by the case of fewest intervals, in one batch after one that is not counted.

    Raises:
        ValueError: none does; the sentence is the last one's.
    """
    case = min(cases, key=lambda each: each.intervals)
    seeds = range(case.seed, case.seed + min(case.n, BATCH))
    given: Row = {"condition": case.asked and case.asked[: len(seeds)], "progress": False}
    for executor in executors:
        try:
            sampler = case.sampler(executor=executor, **how)
            sampler.sample(seeds=seeds, **given)
        except ValueError:
            if executor == executors[-1]:
                raise
            continue
        began = time.perf_counter()
        found = sampler.sample(seeds=seeds, **given)
        seconds = (time.perf_counter() - began) / max(found.evaluations, 1)
        return Pace(executor, sampler.executor, seconds)
    raise ValueError("no executor is named: give eager or native")
