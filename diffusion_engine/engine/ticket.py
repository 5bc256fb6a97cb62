"""`Ticket`: a request as the engine keeps it, from its submission to its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..executors import Capacity, Job
from ..executors.course import Course
from ..executors.job import NoiseSource
from ..networks.network import ScoreNetwork
from ..plan import Plan
from ..rollouts.tape import Tape, tapes
from ..sampler.nonfinite import finite_images
from ..sampler.request import Request
from ..sampler.result import Result, counted
from ..sampler.runner import distinct
from ..sampler.sampler import Sampler
from .adapter import Adapter
from .errors import DeadlineMissed
from .events import Event
from .given import owned
from .handle import Handle, Status
from .host import Host
from .probe import Probe
from .record import Runs, alone

# Whose weights, which buffers, and whose driver has another network in its place.
Signature = tuple[Adapter | None, Capacity, Sampler | None]

CHUNK = 64  # samples of a large request whose jobs are made at a time


@dataclass(eq=False)
class Ticket:
    """A request: its samples take seats one by one, as these come free.

    served    the network that runs it
    sampler   what makes its plans and its recipe
    capacity  that of the lane it waits in
    adapter   whose weights it runs on, None for the network's own
    priority  higher ones go first
    deadline  on the engine's clock, infinity for none
    key       of the submitter, among whom seats are shared fairly
    preview   rows between two previews, 0 for none
    waited    since when on the engine's clock it has got no seat
    service   cost of the samples that got a seat
    error     what the request's own normals raised
    gone      whether it has ended and the engine has let go of it
    bucket    the size of all calls of its network, where bits depend on no more
    probe     what is known of the network's bits
    calls     of samples the calls that they met, where these had a part in their bits
    courses   what leads each of those whose jobs were made so far, where a driver does
    """

    served: Host
    sampler: Sampler
    request: Request
    capacity: Capacity
    plans: Sequence[Plan]
    adapter: Adapter | None = None
    priority: float = 0.0
    deadline: float = math.inf
    key: str = ""
    preview: int = 0
    submitted: float = 0.0
    waited: float = 0.0
    service: float = 0.0
    order: int = 0
    admitted: int = 0
    done: int = 0
    error: Exception | None = None
    gone: bool = False
    samples: list[Tensor | None] = field(default_factory=list)
    bucket: int | None = None
    probe: Probe | None = None
    calls: dict[int, Runs] = field(default_factory=dict)
    tapes: dict[int, Tape] = field(default_factory=dict)
    courses: dict[int, Course] = field(default_factory=dict)
    handle: Handle = field(init=False)
    _jobs: list[Job] = field(default_factory=list)
    _first: int = 0

    def __post_init__(self) -> None:
        self.request = owned(self.request)
        self.samples = [None] * self.request.n
        rows = max(len(plan.rows) for plan in distinct(self.plans))
        slow = self.sampler.decoder is not None or bool(self.request.record)
        self.handle = Handle(self.request.n, rows, self._result, slow)
        self._pixels = math.prod(self.capacity.shape)
        self._make(0)

    @property
    def n(self) -> int:
        return self.request.n

    @property
    def signature(self) -> Signature:
        """What the requests of a lane have in common."""
        return self.adapter, self.capacity, self.wraps

    @property
    def wraps(self) -> Sampler | None:
        """Its sampler, where a driver has another network in the place of its own."""
        return self.sampler if self.sampler.wraps else None

    @property
    def network(self) -> ScoreNetwork:
        """What runs it, made anew where a driver wraps it."""
        return self.sampler.wrapped(self.served.weights.under(self.adapter))

    @property
    def waiting(self) -> int:
        """Samples that have had no seat yet."""
        return 0 if self.ended else self.n - self.admitted

    @property
    def ended(self) -> bool:
        return self.gone or self.handle.ended

    def cost(self, sample: int) -> float:
        """Entries x rows x pixels of a sample."""
        plan = self.plans[sample]
        return plan.entries * len(plan.rows) * self._pixels

    @property
    def work(self) -> int:
        """Entries x rows of all samples."""
        return sum(plan.entries * len(plan.rows) for plan in self.plans)

    def least_s(self, row_s: float) -> float:
        """Seconds that its calls take, a batch full at a time, where a row with one takes so many."""
        return -(-self.n // self.served.capacity) * self.plans[0].nfe * row_s

    def due(self, given: float | None, now: float) -> float:
        """When it has to be done, on the engine's clock. Raises DeadlineMissed where that cannot be.

        given  seconds from now, None for any time
        """
        if given is None:
            return math.inf
        seconds = checks.number("deadline", given)
        if seconds <= 0:
            raise ValueError(f"deadline={seconds:g} lies in the past; give seconds from now")
        lane = self.served.lanes.get(self.signature)
        least = 0.0 if lane is None else self.least_s(lane.least_s)
        if least > seconds:
            raise DeadlineMissed(
                f"deadline={seconds:g} s cannot be met: its rows alone take {least:.3g} s here"
            )
        return now + seconds

    def missed(self, now: float, row_s: float) -> str | None:
        """Why its deadline is not met, as a sentence; None where it may be.

        row_s  seconds that a row takes at least
        """
        late, least, left = now - self.submitted, self.least_s(row_s), self.deadline - now
        if left <= 0:
            return f"the request was not done after {late:.3g} s"
        if self.admitted == 0 and left < least:
            return (
                f"the request had no seat after {late:.3g} s, its rows alone take {least:.3g} s here and "
                f"{left:.3g} s were left"
            )
        return None

    def job(self, sample: int) -> Job:
        """A sample as a batch takes it."""
        if not self._first <= sample < self._first + len(self._jobs):
            self._make(sample)
        return self._jobs[sample - self._first]

    def unit(self, sample: int) -> Job | Course:
        """A sample as a batch takes it, or the course that leads it and perhaps those after it."""
        job = self.job(sample)
        return self.courses.get(sample, job)

    def branches(self, sample: int) -> Sequence[Sequence[int]] | None:
        """Of each row of a sample, those that it called; None where it took several seats."""
        course = self.courses.get(sample)
        if course is None:
            return self.plans[sample].branches
        return course.branches if len(course.jobs) == course.samples == 1 else None

    def _make(self, first: int) -> None:
        # Normals that a function makes are asked for sample by sample: each is at a row of its own.
        size = 1 if callable(self.request.noise) else CHUNK
        driver = self.sampler.driver
        if driver is not None and driver.together:
            size = self.n
            self._check_seats(size)
        part, plans = self.request.part(first, first + size), self.plans[first : first + size]
        new = enumerate(tapes(self.request.record, plans), first)
        heard = [self.tapes.setdefault(i, tape) for i, tape in new]
        jobs = self.sampler.jobs(part, plans, heard)
        at = first
        for course in self.sampler.led(part, plans):
            self.courses |= dict.fromkeys(range(at, at + course.samples), course)
            at += course.samples
            self._check_seats(len(course.jobs))
        self._jobs = [
            job if job.noise is None else replace(job, noise=partial(self._normals, job.noise))
            for job in jobs
        ]
        self._first = first

    def _check_seats(self, count: int) -> None:
        if (driver := self.sampler.driver) and count > self.served.capacity:
            raise ValueError(
                f"driver {driver.name!r} takes {count} seats together and the engine's batch has "
                f"{self.served.capacity}; give Engine a larger capacity"
            )

    def _normals(self, given: NoiseSource, row: int, m: int) -> Tensor:
        """Given ones, or the reason why there are none."""
        try:
            return given(row, m)
        except Exception as error:
            self.error = error
            raise

    def tell(self, sample: int, coming: int | None, denoised: Callable[[], Tensor | None]) -> None:
        """A row of a sample was done, for who reads that.

        coming    its next row, None where it is done
        denoised  makes a copy of its estimate of x0
        """
        course = self.courses.get(sample)
        rows = max(course.length, course.rows) if course else len(self.plans[sample].rows)
        row = rows - 1 if coming is None else coming - 1
        if self.preview and row and row % self.preview == 0:
            self.handle.tell(Event("preview", sample, row, rows, denoised()))
        else:
            self.handle.tell(Event("row", sample, row, rows))

    def take(self, sample: int, made: Tensor) -> bool:
        """Keeps a sample [1, *shape]; whether that was the last one."""
        self.samples[sample] = made
        self.done += 1
        return self.done == self.n

    def leave(self, status: Status) -> None:
        """It has ended: what is still held its handle holds, which where it is done are the samples."""
        self.gone, self._jobs = True, []
        if status != "done":
            self.samples, self.tapes, self.calls, self.courses = [], {}, {}, {}
        del self.handle

    def _recipe(self) -> dict[str, Any]:
        """Of a network that an adapter makes another one, and names so."""
        made = self.sampler.recipe_of(self.request) | self._sizes()
        if self.adapter is not None:
            made["network"] += f" + {self.adapter.name}"
        return made

    def _sizes(self) -> dict[str, Any]:
        """What the recipe says of the network's calls: nothing where these and a replay's own agree."""
        if self.bucket is not None:
            return {"bucket": self.bucket, "calls": None}
        rows = [self.branches(i) for i in range(self.n)]
        if None in rows:
            return {"bucket": None, "calls": None}
        each = [tuple(branches or ()) for branches in rows]
        others = {branches: alone(branches) for branches in set(each)}
        runs = [self.calls.get(i) or others[branches] for i, branches in enumerate(each)]
        made = [[[*run] for run in sample] for sample in runs]
        met = {size for sample in made for run in sample for size in run[1::2]}
        together = sum(plan.entries for plan in self.plans)
        probe = self.probe
        if probe and all(map(probe.agrees, met)) and together <= probe.agreeing:
            made = []
        return {"bucket": None, "calls": made or None}

    def _result(self) -> Result:
        """What the handle gives, made by the thread that asks for it."""
        samples, latents = torch.cat([s for s in self.samples if s is not None]), None
        finite = [True] * self.n
        decoder = self.sampler.decoder
        if decoder is not None and self.request.encoding is None:
            with torch.no_grad():
                samples, latents = decoder(samples), samples
            finite = finite_images(self.request.seeds, finite, samples)
        return Result(
            samples=samples,
            seeds=list(self.request.seeds),
            **counted(self.plans, list(dict.fromkeys(self.courses.values()))),
            recipe=self._recipe(),
            finite=finite,
            latents=latents,
            rollout=self.sampler.rollout_of(self.request, self.plans, list(self.tapes.values())),
        )
