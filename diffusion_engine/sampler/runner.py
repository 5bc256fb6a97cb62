"""A network placed on a device, with the executor that runs its samples in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import checks, trace
from ..accelerate.accelerated_copy import Example
from ..accelerate.form import Form
from ..accelerate.form import named as named_form
from ..accelerate.handle import Accelerated
from ..executors import Batch, Capacity, Graph, GraphError, Job
from ..executors.batch import plain
from ..executors.course import Course
from ..networks.contents import check_weights
from ..networks.decoder import Decoder
from ..networks.network import ScoreNetwork
from ..networks.placement import evaluating, moved
from ..networks.wrapper import unwrapped
from ..plan import Plan
from ..processes import Point
from ..rollouts.recorded import recorded
from ..rollouts.rollout import Rollout
from ..rollouts.tape import Tape, tapes
from . import buckets
from .branches import branches, example
from .derived import Derived
from .jobs import jobs
from .nonfinite import finite_images, warn_nonfinite
from .place import Place
from .progress import Progress, bar, watcher
from .request import Request

if TYPE_CHECKING:
    from ..native.shown import Shown
    from ..providers.choice import Choice

BATCH = "at least 1 sample a batch"

# The samples, whether each is finite, the latents where a decoder made images of them, and the rollout.
Made = tuple[Tensor, list[bool], Tensor | None, Rollout | None]


def distinct(plans: Sequence[Plan]) -> list[Plan]:
    """Each plan once; those of a sampler are the same objects."""
    return list({id(plan): plan for plan in plans}.values())


class Runner:
    """Where and how a network runs; Sampler explains the arguments.

    first  the point of a run whose label an example of a call has
    place  where, in what and by what
    """

    def __init__(
        self,
        network: ScoreNetwork,
        first: Point,
        place: Place,
        *,
        batch_size: int = 64,
        accelerate: bool | str = False,
        compile: bool = False,
        decoder: Decoder | str | None = "network",
    ) -> None:
        self.place, self.device, self.executor = place, place.device, place.executor
        self.input_dtype = place.input_dtype
        self.batch_size = checks.whole("batch_size", batch_size, 1, BATCH)
        form = Form.parsed(accelerate) if isinstance(accelerate, str) else None
        fuses = form is not None or checks.flag("accelerate", accelerate)
        called = self._example(network, first, form) if fuses else None
        compiled_for = self.device if checks.flag("compile", compile) else None
        own_place = partial(moved, dtype=self.input_dtype, device=self.device)
        self._derived = Derived(network, own_place, called, compiled_for)
        if objection := self.executor.objection(self.device):
            raise GraphError(objection)
        decoder = network.decoder if decoder == "network" else decoder
        if not isinstance(decoder, Decoder | None):
            raise ValueError(
                f"decoder={type(decoder).__name__}: give Decoder(module, scale_factor=...), None or 'network'"
            )
        self.decoder = None if decoder is None else decoder.placed(network.shape, self.device)

    def _example(self, network: ScoreNetwork, first: Point, form: Form | None) -> Example:
        about = network.parameterisation
        label, end = about.label_of(first), about.end_label_of(first, first)
        given = example(network, self.device, self.input_dtype)
        return Example(label, given, self.input_dtype, self.device, form, end)

    @property
    def network(self) -> ScoreNetwork:
        """What runs: the network given, or one made from it in another dtype, accelerated or compiled."""
        return self._derived.network

    @property
    def dtype(self) -> torch.dtype:
        """What the network is computed in, also where its weights and input are float32."""
        if self.executor.precision is None:
            return self.place.dtype
        return self.executor.dtype_of(self.network) or torch.float32

    @property
    def accelerated(self) -> Accelerated | None:
        """What accelerate=True did to the network; print it. None before the first run."""
        return self._derived.accelerated

    @property
    def form(self) -> str | None:
        """What computes the network, as recipes name it, where the bits are not the module's own."""
        if (form := self.executor.form(self.network)) is not None:
            return form
        done, example = self.accelerated, self._derived.example
        made = None if example is None else example.form
        if done is not None:
            made = done.form
        return None if made is None else named_form(made, self.device)

    @property
    def accelerates(self) -> bool:
        """Whether accelerate was asked for."""
        return self._derived.example is not None

    def ready(self, entries: int, form: str | None = None) -> None:
        """Settles how the network runs, before its first call.

        entries  of its calls
        form     of an accelerated network, which another process has found to be the fastest
        """
        if form is not None:
            self._derived.told(Form.parsed(form))
        self._followed(entries)

    @property
    def recording(self) -> Shown | None:
        """What executor="native" recorded of the network so far; print it. None of other executors."""
        from ..native import Native

        executor = self.executor.runs(self.network)
        return executor.recorded(self.network) if isinstance(executor, Native) else None

    @property
    def choice(self) -> Choice | None:
        """What executor="auto" measured, and which executor it kept; print it. None before the first run,
        and of other executors."""
        from ..providers.auto import Auto

        return self.executor.choice(self.network) if isinstance(self.executor, Auto) else None

    @property
    def state_dtype(self) -> torch.dtype:
        """float32, or float64 where the network runs in it (the reference step only)."""
        return torch.float64 if self.input_dtype == torch.float64 else torch.float32

    def _run(
        self,
        part: Request,
        plans: Sequence[Plan],
        courses: Sequence[Course],
        on_step: Callable[[Progress], None] | None,
        every: int,
        progress: bool | None,
    ) -> Made:
        """The samples of a part of a request, each by its own of the plans or led by a course: all are
        admitted and step while one lives."""
        network, each_plan = self._followed(_entries(part, plans)), distinct(plans)
        heard = tapes(part.record, plans)
        each = self.jobs(part, plans, heard)
        if courses:
            each = [job for course in courses for job in course.jobs]
        capacity = self.capacity(network, part, each, on_step is not None)
        if progress is None and not self.executor.between_rows:
            progress = False
        seen = bar(each_plan, courses, progress)
        parts = 1 if part.encoding is None else network.process.parts
        with seen or nullcontext(), evaluating(network.module, unwrapped(network.module)):
            watch = watcher(each_plan, part.n, seen, on_step, every, courses)
            with self._batch(network, capacity, part) as batch:
                if courses:
                    seats = [s for c in courses for s in batch.lead(c)[: c.samples]]
                else:
                    seats = [batch.admit(job) for job in each]
                if part.sized:
                    call = self.executor.calling(network)
                    own = [job.plan for job in each]
                    buckets.finish(call, batch, courses or own, part.bucket, part.calls, watch)
                else:
                    self.executor.finish(batch, watch)
                for course in courses:
                    if course.error is not None:
                        raise course.error
                samples, finite = batch.read(seats, parts), batch.finite(seats)
        if not all(finite):
            warn_nonfinite(part.seeds, finite)
        rollout = self.rollout_of(part, plans, heard)
        if self.decoder is None or part.encoding is not None:
            return samples, finite, None, rollout
        with torch.no_grad():
            made = trace.traced("decode", self.decoder)(samples)
        return made, finite_images(part.seeds, finite, made), samples, rollout

    def _batch(
        self, network: ScoreNetwork, capacity: Capacity, part: Request
    ) -> AbstractContextManager[Batch]:
        """A batch for a part of a request; one whose calls are made for it where their sizes are said."""
        if part.sized:
            return nullcontext(self.executor.open(None, capacity))
        return self.executor.batch(network, capacity)

    def jobs(self, part: Request, plans: Sequence[Plan], heard: Sequence[Tape] = ()) -> list[Job]:
        """A part of a request as jobs, each by its own of the plans.

        heard  what records each
        """
        network = self.network
        conditions = branches(part, network, self.device, self.input_dtype)
        made = jobs(part, plans, conditions, network.shape)
        return [tape.of(job) for tape, job in zip(heard, made, strict=True)] if heard else made

    def capacity(
        self, network: ScoreNetwork, part: Request, each: Sequence[Job], denoised: bool = False
    ) -> Capacity:
        """Room for all jobs of a part of a request.

        network   what runs them
        denoised  whether the estimates of x0 are written
        """
        return Capacity.of(
            network,
            distinct([job.plan for job in each]),
            len(each),
            device=self.device,
            dtype=self.input_dtype,
            state_dtype=self.state_dtype,
            conditions=each[0].conditions,
            given=part.noise is not None,
            brownian=each[0].brownian,
            masked=part.mask is not None,
            denoised=denoised,
        )

    def rollout_of(
        self, part: Request, plans: Sequence[Plan], heard: Sequence[Tape]
    ) -> Rollout | None:
        """The rollout of samples that have ended, where the request asks for one."""
        if not part.record:
            return None
        network = self.network
        conditions = branches(part, network, self.device, self.input_dtype)
        with plain():  # what is trained on later is no inference tensor
            return recorded(
                part.record, plans, part.seeds, heard, conditions, network.shape, self.input_dtype,
                self.device, part.mask,
            )  # fmt: skip

    def _followed(self, entries: int = 0) -> ScoreNetwork:
        """The network to run, with what the user has changed of it since.

        entries  of the coming calls, where that is known
        """
        before, network = self.network, self._derived.follow(entries)
        if network is not before:
            self.executor.forget(before)
        return network

    def update_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copies weights into the network this sampler runs, in place, so that captured graphs see them.

        weights  as in the module's `state_dict`: every name and shape
        A copy of the module in another dtype or on another device keeps these weights, whatever becomes of
        the module. Not while a thread samples. Raises ValueError where names or shapes differ; nothing is
        then changed.
        """
        inner = unwrapped(self._followed().module)
        check_weights(inner, weights)
        inner.load_state_dict(weights)
        self._derived.release()

    def recapture(self) -> None:
        """Drops the captured graphs of the network: after its weights were moved or replaced."""
        executor = self.executor.runs(self.network)
        if isinstance(executor, Graph):
            executor.recapture(self.network)


def _entries(part: Request, plans: Sequence[Plan]) -> int:
    """Of the largest call that a part of a request makes."""
    if part.bucket is not None:
        return part.bucket
    if part.calls is not None:
        return max(
            (size for sample in part.calls for run in sample for size in run[1::2]), default=1
        )
    return part.n * max(plan.entries for plan in plans)
