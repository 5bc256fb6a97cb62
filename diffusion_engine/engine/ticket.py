"""`Ticket`: a request as the engine keeps it, from its submission to its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..executors import Capacity, Job
from ..plan import Plan
from ..rollouts.tape import Tape, tapes
from ..sampler.request import Request
from ..sampler.result import Result
from ..sampler.sampler import Sampler
from .handle import Handle

if TYPE_CHECKING:
    from .served import Served

CHUNK = 64  # samples of a large request whose jobs are made at a time


@dataclass(eq=False)
class Ticket:
    """A request: its samples take seats one by one, as these come free.

    served    the network that runs it
    sampler   what makes its plans and its recipe
    capacity  that of the lane it waits in
    priority  higher ones go first
    deadline  on the engine's clock, infinity for none
    key       of the submitter, among whom seats are shared fairly
    preview   rows between two previews, 0 for none
    waited    since when on the engine's clock it has got no seat
    service   cost of the samples that got a seat
    error     what the request's own function of normals raised
    """

    served: Served
    sampler: Sampler
    request: Request
    capacity: Capacity
    plans: Sequence[Plan]
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
    samples: list[Tensor | None] = field(default_factory=list)
    tapes: list[Tape] = field(default_factory=list)
    handle: Handle = field(init=False)
    _jobs: list[Job] = field(default_factory=list)
    _first: int = 0

    def __post_init__(self) -> None:
        self.samples = [None] * self.request.n
        self.tapes = tapes(self.request.record, self.plans)
        self.handle = Handle(self.request.n, max(len(p.rows) for p in self.plans), self._result)
        self._make(0)

    @property
    def n(self) -> int:
        return self.request.n

    @property
    def waiting(self) -> int:
        """Samples that have had no seat yet."""
        return 0 if self.handle.ended else self.n - self.admitted

    def cost(self, sample: int) -> float:
        """Entries x rows x pixels of a sample."""
        plan = self.plans[sample]
        return plan.entries * len(plan.rows) * math.prod(self.capacity.shape)

    def job(self, sample: int) -> Job:
        """A sample as a batch takes it."""
        if not self._first <= sample < self._first + len(self._jobs):
            self._make(sample)
        return self._jobs[sample - self._first]

    def _make(self, first: int) -> None:
        given = self.request.noise
        # Normals that a function makes are asked for sample by sample: each is at a row of its own.
        size = 1 if callable(given) else CHUNK
        part = self.request.part(first, first + size)
        if callable(given):
            part = replace(part, noise=partial(self._normals, given))
        plans, heard = self.plans[first : first + size], self.tapes[first : first + size]
        self._jobs = self.sampler.prepared(self.served.network, part, plans, heard=heard)[0]
        self._first = first

    def _normals(self, given: Callable[..., Tensor], *asked: Any) -> Tensor:
        """Given ones, or the reason why there are none."""
        try:
            return given(*asked)
        except Exception as error:
            self.error = error
            raise

    def take(self, sample: int, made: Tensor) -> bool:
        """Keeps a sample [1, *shape]; whether that was the last one."""
        self.samples[sample] = made
        self.done += 1
        return self.done == self.n

    def drop(self) -> None:
        """Lets go of what it holds: it ended without samples."""
        self.samples, self.tapes, self._jobs = [], [], []

    def _result(self) -> Result:
        """What the handle gives, made by the thread that asks for it."""
        samples, latents = torch.cat([s for s in self.samples if s is not None]), None
        finite = [True] * self.n
        decoder = self.sampler.decoder
        if decoder is not None and self.request.encoding is None:
            with torch.no_grad():
                samples, latents = decoder(samples), samples
        return Result(
            samples=samples,
            seeds=list(self.request.seeds),
            nfe=self.plans[0].nfe,
            evaluations=sum(plan.evaluations for plan in self.plans),
            recipe=self.sampler.recipe_of(self.request),
            finite=finite,
            latents=latents,
            rollout=self.sampler.rollout_of(self.request, self.plans, self.tapes),
        )
