"""What drivers by embedded pairs share: two ends of a step, whose difference says how long steps may be."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from .. import checks
from ..executors.course import Course, Lead, LeadError, Move, Seen
from ..networks.parameterisation import Parameterisation
from ..plan.linear import Linear, denoised, normal, slot, x
from ..processes import GaussianProcess, Point
from ..sampler.led import Run
from ..solvers.base import transfer
from ..solvers.update import Update
from .base import Driver
from .sums import dots

STATE = slot(0)  # in the terms of a Step: x where it begins
TOLERANCE = "a tolerance is a finite number above 0"
Called = Generator[list[Move], list[Seen], Tensor]


def above_0(name: str, given: Any, wanted: str) -> float:
    """A finite number above 0."""
    if (value := checks.number(name, given, wanted)) <= 0.0:
        raise ValueError(f"{name}={value:g}: {wanted}")
    return value


def estimate(i: int) -> Linear:
    """In the terms of a Step: the estimate of x0 of its call i, of which 0 is the one where it begins."""
    return slot(1 + i)


@dataclass(frozen=True)
class Step:
    """A step, in terms of STATE and of the estimates of x0 of its calls.

    calls  behind the first: where each is made, and the state that it reads
    end    of the higher order, with which the run goes on
    low    the other end
    noise  standard deviation of what is added to the end
    """

    calls: Sequence[tuple[Point, Linear]]
    end: Linear
    low: Linear
    noise: float = 0.0


class Lengths(Protocol):
    """Chooses the lengths of steps.

    h  of the next one
    """

    h: float

    def accepts(self, error: float, length: float) -> bool:
        """Whether a step of this length was good; the next h follows from its error."""
        ...


@dataclass(frozen=True)
class Embedded(Driver):
    """Steps from a run's first point to its last noisy one, whose lengths follow from their errors, then
    DDIM's to clean data where the run ends there. What it has in between is not visited.

    max_calls  of the network, beyond which a sample is given up
    """

    leads: ClassVar[bool] = True
    slots: ClassVar[int] = 2  # x, and what a call within a step reads
    # Whether the last call of a step is that of the next one's beginning.
    first_same_as_last: ClassVar[bool] = False
    max_calls: int = 1000

    def __post_init__(self) -> None:
        wanted = "give a whole number of calls, 1 or more"
        checks.settle(self, "max_calls", checks.whole, 1, wanted)

    def place(self, at: Point) -> float:
        """Where a point is in what steps are measured in, which rises towards data."""
        raise NotImplementedError

    def point(self, process: GaussianProcess, place: float) -> Point:
        """The point of a place."""
        raise NotImplementedError

    def step(self, process: GaussianProcess, s: Point, t: Point, last: Point) -> Step:
        """The step from s to t of a run that goes to `last`."""
        raise NotImplementedError

    def lengths(self) -> Lengths:
        """What chooses those of a sample."""
        raise NotImplementedError

    def allowed(self, before: Tensor, end: Tensor, low: Tensor) -> Tensor:
        """The error that every element of a step may have, all of one shape.

        before  what `kept` had of the step before, or x at the beginning
        """
        raise NotImplementedError

    def kept(self, end: Tensor, low: Tensor) -> Tensor:
        """What is x of a step for the tolerance of the next one."""
        return end

    def leaves(self, process: GaussianProcess, first: Point) -> Point | None:
        """Where DDIM's step leads from a first point that the pair cannot start from."""
        return None

    def objection(self, network: Parameterisation, points: Sequence[Point]) -> str | None:
        if network.process.parts != 1:
            return "its steps move x alone, and CLD has a state of [x, v]; leave it out"
        if len(points) == 2 and points[-1].sigma == 0.0:
            return "its run is one step to clean data; give steps=2 or more, which says where the run ends"
        return None

    def courses(self, runs: Sequence[Run]) -> list[Course]:
        groups = [runs] if self.together else [[run] for run in runs]
        return [
            Course(self._lead(group), [run.seat(self.slots) for run in group], len(group))
            for group in groups
        ]

    def _lead(self, runs: Sequence[Run]) -> Lead:
        """Samples that take the same steps, of which there is one as a rule."""
        seats = _Group(runs, self.max_calls, self.name)
        process, points = runs[0].process, runs[0].points
        clean = points[-1] if points[-1].sigma == 0.0 else None
        last = points[-1] if clean is None else points[-2]
        s, lengths, rejected, times = seats.first, self.lengths(), 0, list[float]()
        estimates = [(yield from seats.call(s))]
        if (t := self.leaves(process, s)) is not None:
            seats.accept(seats.combined(transfer(s, t, STATE, estimate(0)), estimates), t)
            times.append((s := t).t)
            estimates = [(yield from seats.call(s))]
        before = seats.x
        while s.lam < last.lam:
            place = self.place(s) + lengths.h
            t = last if place > self.place(last) - 1e-5 * lengths.h else self.point(process, place)
            step = self.step(process, s, t, last)
            for at, state in step.calls:
                estimates.append((yield from seats.call(at, seats.combined(state, estimates))))
            end, low = (seats.combined(made, estimates) for made in (step.end, step.low))
            error = rms((end - low) / self.allowed(before, end, low))
            if not math.isfinite(error):  # it ends there, and its result says that it is not finite
                seats.accept(torch.full_like(end, math.nan), t)
                clean = None
                break
            if not lengths.accepts(error, self.place(t) - self.place(s)):
                rejected += 1
                del estimates[1:]
                continue
            before = self.kept(end, low)
            seats.accept(end, t, step.noise)
            times.append((s := t).t)
            if self.first_same_as_last and not seats.renewed:
                estimates = estimates[-1:]
            elif s is not last or clean is not None:
                estimates = [(yield from seats.call(s))]
        yield from seats.finish(clean)
        return {"calls": seats.calls, "steps": len(times), "rejected": rejected, "times": times}


class _Group:
    """The seats of samples that make the same calls. Slot 0 has x, slot 1 what a call within a step reads.

    first  where they begin
    calls  that each has made
    """

    def __init__(self, runs: Sequence[Run], most: int, name: str) -> None:
        self.runs, self.most, self.name = runs, most, name
        self.calls = self.accepted = 0
        self.renewed = False
        self.first = runs[0].plan.rows[0].state or runs[0].points[0]
        self._at, self._read = self.first, (0,)
        self._rows = [run.plan.rows[0] for run in runs]  # that come next
        self._seen: list[Seen] = []

    @property
    def x(self) -> Tensor:
        """[n, C, *pixel] in float64."""
        return torch.stack([seen.x for seen in self._seen]).double()

    def combined(self, terms: Linear, estimates: Sequence[Tensor]) -> Tensor:
        """A value of a Step, [n, C, *pixel] in float64."""
        return combined(terms, [self.x, *estimates])

    def call(self, at: Point, state: Tensor | None = None) -> Called:
        """The estimates of x0 at a point, [n, C, *pixel] in float64: of x, or of a state in its place."""
        if self.calls >= self.most:
            seeds = ", ".join(str(run.seed) for run in self.runs)
            raise LeadError(
                f"driver {self.name!r}: the sample of seed {seeds} has made max_calls={self.most} calls and "
                f"is at t={at.t:g}; give greater tolerances, or a greater max_calls"
            )
        if state is not None:
            self._write(1, state)
        rows, self._at, self._read = self._rows, at, (0,) if state is None else (1,)
        self._become({0: x}, None)
        self.calls += 1
        self._seen = yield [Move(*each) for each in zip(rows, self._rows, strict=True)]
        return torch.stack([seen.denoised for seen in self._seen]).double()

    def accept(self, value: Tensor, t: Point, noise: float = 0.0) -> None:
        """Makes x a value, which has the law of t once noise is added: by the row of the last call."""
        self._write(0, value)
        self.accepted += 1
        self.renewed = noise > 0.0 or any(run.job.mask is not None for run in self.runs)
        self._become({0: x + noise * normal(0)}, t)

    def finish(self, clean: Point | None) -> Generator[list[Move], list[Seen], None]:
        """Ends where x is, or with the estimate of the last call as clean data."""
        if clean is not None:
            self.accepted += 1
            self._become({0: transfer(self._at, clean, x, denoised)}, clean)
        yield [Move(row, None) for row in self._rows]

    def _write(self, k: int, value: Tensor) -> None:
        for seen, each in zip(self._seen, value, strict=True):
            seen.slots[k].copy_(each)

    def _become(self, new: dict[int, Linear], state: Point | None) -> None:
        """What the last call becomes."""
        update = Update(self._at, new, state, self._read)
        key = self.accepted if state is not None else 0
        self._rows = [run.row(update, run.plan.rows[0].key | key) for run in self.runs]


def combined(terms: Linear, known: Sequence[Tensor]) -> Tensor:
    """A value of a Step.

    known  what its terms name, STATE and the estimates in order
    """
    parts = (weight * known[int(symbol[1:])] for symbol, weight in terms)
    return sum(parts, torch.zeros_like(known[0]))


def rms(error: Tensor) -> float:
    """Of [n, C, *pixel], the same whatever computes it."""
    return math.sqrt(float(dots(error, error).sum()) / error.numel())
