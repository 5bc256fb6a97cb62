"""The same seeds by several solvers and step counts: samples, calls, times and distances."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .. import checks
from ..networks.network import ScoreNetwork
from ..sampler.sampler import Sampler
from ..solvers import Solver
from .fine import Fine, distances, fine_solution

COLUMNS = 8  # of a range
MOST = 1000  # runs of one comparison
OWN = ("grid", "steps", "times", "sigmas", "forecast")  # which the fine solution has otherwise
NOISE = "draws noise"
NO_ODE = "no ODE"


@dataclass(frozen=True, eq=False)
class Cell:
    """One run.

    steps, calls, evaluations  of the grid; of a sample one after another; of all samples, branches counted
    seconds    of the run, whose batch was made before
    samples    [n, *shape]
    distances  [n] from the fine solution; None where that says nothing of this solver
    why        it says nothing
    """

    steps: int
    calls: int
    evaluations: int
    seconds: float
    samples: Tensor
    distances: Tensor | None
    why: str = ""

    @property
    def distance(self) -> float | None:
        """The root of the mean square over all samples."""
        if self.distances is None:
            return None
        return float(torch.sqrt(self.distances.square().mean()))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs by the names of their solvers, a row each, and by counts, a column each.

    by     what is counted: "steps" or "calls"
    cells  of each row, one a count; None where a solver has no run of so few calls
    fine   what made the fine solution, and its samples
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    by: str
    seeds: tuple[int, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    fine: Fine
    solution: Tensor


@dataclass(frozen=True, eq=False)
class Comparing:
    """Runs that were checked and are not made yet: `prepared` makes it, `run` runs them.

    samplers  of each row, one a count
    how       of the fine solution
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    by: str
    samplers: tuple[tuple[Sampler | None, ...], ...]
    fine: Fine
    network: ScoreNetwork
    how: Mapping[str, Any]

    def run(self, seeds: Sequence[int], condition: Any = None) -> Comparison:
        """The runs, one after another, and the fine solution."""
        asked = {"seeds": list(seeds), "condition": condition, "progress": False}
        solution = fine_solution(
            self.network, seeds, condition, fine=self.fine, **self.how
        ).cpu()  # fmt: skip
        self._warm_up(asked)
        with tqdm(total=len(self.names), unit="solver", leave=False, disable=None) as bar:
            cells: list[tuple[Cell | None, ...]] = []
            for row in self.samplers:
                cells.append(
                    tuple(None if each is None else _cell(each, asked, solution) for each in row)
                )
                bar.update()
        return Comparison(
            self.names, self.counts, self.by, tuple(seeds), tuple(cells), self.fine, solution
        )

    def _warm_up(self, asked: Mapping[str, Any]) -> None:
        """Makes what a first run makes, the batch and whatever the executor records, outside of any time."""
        every = [each for row in self.samplers for each in row if each is not None]
        min(every, key=lambda each: each.plan().nfe).sample(**asked)


def prepared(
    network: ScoreNetwork,
    rules: Mapping[str, Solver],
    counts: Sequence[int],
    by: str = "steps",
    *,
    fine_steps: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    how: Mapping[str, Any] | None = None,
) -> Comparing:
    """The runs of several solvers, checked before the first is made.

    rules      solvers by the names that they are shown with
    counts     of the columns: steps, or network calls, for which a solver takes as many steps as it can
    arguments  of Sampler that all share: grid, end, guidance, interval, guider, ...
    how        device, executor and the like
    Raises ValueError where a solver does not suit the network or a number of steps.
    """
    checks.one_of("by", by, ("steps", "calls"))
    counts = tuple(checks.whole("steps", n, 1, "counts are 1 or more") for n in counts)
    if not rules or not counts:
        raise ValueError("there is nothing to compare: give a solver and a number of steps")
    if len(rules) * len(counts) > MOST:
        raise ValueError(f"{len(rules)} solvers at {len(counts)} counts are more than {MOST} runs")
    shared, how = dict(arguments or {}), dict(how or {})
    fine = Fine.of(network) if fine_steps is None else Fine.of(network, fine_steps)
    own = {n: v for n, v in shared.items() if n not in OWN}
    first = Sampler(network, fine.name, fine.steps, grid=fine.grid, **fine.options, **own, **how)
    # One executor keeps the threads and records of all.
    how = {n: v for n, v in how.items() if n not in ("backend", "threads")} | {
        "executor": first.executor
    }
    made = []
    for rule in rules.values():
        each = Counted(network, rule, shared | how)
        made.append(tuple(each.steps(n) if by == "steps" else each.calls(n) for n in counts))
    if all(sampler is None for row in made for sampler in row):
        raise ValueError(f"no solver has a run of {max(counts)} calls or fewer; give more")
    return Comparing(tuple(rules), counts, by, tuple(made), fine, network, own | how)


@dataclass(frozen=True, eq=False)
class Counted:
    """Samplers of one solver, by steps or by calls."""

    network: ScoreNetwork
    rule: Solver
    how: Mapping[str, Any]

    def steps(self, n: int) -> Sampler:
        return Sampler(self.network, self.rule, **{**self.how, "steps": n})

    def calls(self, n: int) -> Sampler | None:
        """Of the most steps with n calls at most; calls grow with steps."""
        low, high, found = 1, n, None
        while low <= high:
            middle = (low + high) // 2
            sampler = self.steps(middle)
            if sampler.plan().nfe <= n:
                low, found = middle + 1, sampler
            else:
                high = middle - 1
        return found


def _cell(sampler: Sampler, asked: Mapping[str, Any], solution: Tensor) -> Cell:
    began = time.perf_counter()
    result = sampler.sample(**asked)
    samples = result.samples.cpu()
    seconds = time.perf_counter() - began
    why = _apart(sampler)
    return Cell(
        steps=len(sampler.points) - 1,
        calls=result.nfe,
        evaluations=result.evaluations,
        seconds=seconds,
        samples=samples,
        distances=None if why else distances(samples, solution),
        why=why,
    )


def _apart(sampler: Sampler) -> str:
    """Why a fine solution of the ODE says nothing of a solver; "" where it does."""
    if any(sampler.plan().draws[1:]):
        return NOISE
    return NO_ODE if getattr(sampler.solver, "cfg_pp", False) else ""


def thinned(low: int, high: int, most: int = COLUMNS) -> tuple[int, ...]:
    """At most so many counts from low to high, evenly spaced on a logarithmic scale."""
    if high - low < most:
        return tuple(range(low, high + 1))
    ratio = (high / low) ** (1.0 / (most - 1))
    return tuple(dict.fromkeys(round(low * ratio**i) for i in range(most)))
