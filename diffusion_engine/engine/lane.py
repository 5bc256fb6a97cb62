"""`Lane`: a batch of one network, who sits in it, and who waits for a seat."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

import torch

from ..executors import Batch, BatchFull, GraphError, Job
from ..executors.buffers import Inputs
from ..executors.course import Course
from .adapter import Adapter
from .calls import APART, Call, Limit, alone, in_parts, out_of_memory, told
from .errors import EngineError, NonFinite, bare
from .host import Host
from .probe import Probe, Promised
from .record import Record, Way
from .ticket import Ticket
from .waiting import Waiting

SLOWER = 1.01  # a row: what the fastest one took is forgotten after some hundred

Failed = Callable[[Ticket, BaseException | None], None]


class Lane:
    """Its turns are the engine's; it moves all of its seats by one row in each.

    served   the network that it belongs to
    adapter  whose weights it runs on, None for the network's own
    failed   ends a request that cannot go on, with the reason
    probe    what is known of the network's bits, or None
    exact    whether bits depend on no call, however it is made
    bucket   the size of all calls, where bits depend on no more; else samples remember the calls they met
    row_s    seconds that a row takes, smoothed; 0 before the first
    least_s  seconds that a row with a call takes at least
    turned   when it had its last turn, or began to wait for one, on the engine's clock
    had      its virtual time, in seconds of rows over its weight; turns.py explains it and rank
    rank     the priority for which that counts
    """

    def __init__(
        self,
        served: Host,
        adapter: Adapter | None,
        batch: Batch,
        waiting: Waiting,
        failed: Failed,
        probe: Probe | None = None,
    ) -> None:
        self.served, self.adapter = served, adapter
        assert batch.stages.network is not None
        self.network, self.batch, self.waiting = batch.stages.network, batch, waiting
        self._failed = failed
        self.fixed, self.probe = batch.capacity.fixed, probe
        self.exact = isinstance(probe, Promised)
        known = self.fixed and probe is not None and probe.alike(batch.capacity.room)
        self.bucket = batch.capacity.room if known and not self.exact else None
        self._record = Record()
        self._way = "whole"  # how the network was called last: whole, in parts, apart
        self.seats: dict[int, tuple[Ticket, int]] = {}
        self._limit = Limit(batch.capacity.room)
        self.apart = 0  # rows in which samples are called one by one: together they failed
        self._apart_next = 1  # the next time; twice as many where alone they do not
        self.row_s = self.least_s = self.turned = self.had = 0.0
        self.rank, self._met = 0, {0}  # sizes of its calls

    @property
    def load(self) -> int:
        """Entries that its seats may call the network with; 1 where they are not taken yet."""
        return max(1, self.batch.entries)

    @property
    def busy(self) -> bool:
        return bool(self.seats or self.waiting)

    @property
    def fresh(self) -> bool:
        """For any thread: whether the call that is made now is the first of its size here."""
        return self.batch.stages.size(self.batch.calls) not in self._met

    @property
    def most(self) -> int:
        """Entries that a call may have: the batch's room, and fewer where memory ran out."""
        return self._limit.most

    def tickets(self) -> list[Ticket]:
        """Who sits here and who waits."""
        return [*{ticket for ticket, _ in self.seats.values()}, *self.waiting.tickets()]

    def admit(self, now: float) -> list[Ticket]:
        """Gives the free seats to who waits; the requests that have their first seat now."""
        started: list[Ticket] = []
        if not len(self.waiting):
            return started
        free = self.served.capacity - len(self.seats) + len(self.batch.ending)
        while free > 0 and (ticket := self.waiting.pop(now)):
            sample = ticket.admitted
            try:
                count, seats = self._seated(ticket.unit(sample), free)
            except BatchFull:  # its rows have no room among those of the others
                self.waiting.put(ticket, now)
                break
            except Exception as error:
                self._failed(ticket, error)
                continue
            free -= len(seats)
            for i, seat in enumerate(seats):  # beyond its samples a course has seats that hold none
                self.seats[seat] = ticket, sample + i if i < count else -1
                self._record.sit(seat)
            ticket.bucket, ticket.probe = self.bucket, self.probe
            ticket.admitted, ticket.waited = sample + count, now
            if sample == 0:
                started.append(ticket)
            self.waiting.charge(ticket, ticket.cost(sample) * len(seats))
            if ticket.admitted < ticket.n:
                self.waiting.put(ticket, now)
        return [ticket for ticket in started if not ticket.gone]  # a later sample may have failed

    def _seated(self, unit: Job | Course, free: int) -> tuple[int, list[int]]:
        """How many samples have their seats now, and these."""
        if isinstance(unit, Job):
            return 1, [self.batch.admit(unit)]
        if len(unit.jobs) > free:
            raise BatchFull(f"{free} seats are free and the course takes {len(unit.jobs)}")
        return unit.samples, self.batch.lead(unit)

    def release(self, ticket: Ticket) -> None:
        """A request has ended: frees its seats."""
        gone = [seat for seat, (held, _) in self.seats.items() if held is ticket]
        for seat in gone:
            self._free(seat)
        if ticket.admitted < ticket.n:
            self.waiting.leave(ticket)

    def step(self) -> list[tuple[Ticket, int, torch.Tensor]]:
        """One row of every seat; the samples that are done, as (request, which, [1, *shape])."""
        began, called = perf_counter(), self.batch.calls
        done: list[tuple[Ticket, int, torch.Tensor]] = []
        try:
            ended = self._moved()
            began += self._note()  # what trying a size took is no row's
            self._met.add(self.batch.stages.size(self.batch.called.count))
            self._tell()
            if ended:
                self._harvest(ended, done)
        except Exception as error:  # of an earlier row's kernels too, which a device may tell late
            self._fail_all(error)
            return done
        took = perf_counter() - began
        self.row_s = took if not self.row_s else 0.9 * self.row_s + 0.1 * took
        if called:
            self.least_s = min(took, SLOWER * self.least_s or took)
        return done

    def _moved(self) -> list[int]:
        """One row of who can; what fails on the way is done in another way, or fails whom it belongs to."""
        self._limit.row()
        while True:
            try:
                ended = self.batch.step(outs=self._outs())
            except Exception as error:
                self._mend(error)
                continue
            if self.apart:
                self.apart -= 1
            else:
                self._apart_next = 1
            return ended

    def _outs(self) -> list[torch.Tensor] | None:
        """The outputs of the coming call, where the batch cannot make them at once."""
        self._way = "whole"
        if not self.apart and self.most >= self.batch.capacity.room:
            return None
        given = self.batch.inputs()
        if given is None:
            return None
        if self.apart:
            self._way = "apart"
            return self._apart(given)
        if self.batch.calls <= self.most:
            return None
        self._way = "parts"
        return in_parts(self._calling, given, self.most)

    def _mend(self, error: Exception) -> None:
        """Sees to it that the step that failed, in which nobody has moved, can be done. Raises where nothing
        helps."""
        blamed = {ticket for ticket, _ in self.seats.values() if ticket.error is not None}
        for ticket in blamed:
            self._failed(ticket, ticket.error)
        if blamed:
            return
        if out_of_memory(error) and self.most > 1 and not self.fixed:
            self._limit.halve(self.batch.calls)
        elif self.apart or isinstance(error, GraphError):
            raise told(error, self.batch.capacity.room if self.fixed else None)
        else:  # also where memory ran out: one of them may take more than the others
            self.apart = self._apart_next
            self._apart_next = min(2 * self._apart_next, APART)

    def _apart(self, given: Inputs) -> list[torch.Tensor]:
        """The outputs of the coming call, each sample called alone; whose call fails, fails."""
        size = self.batch.capacity.room if self.fixed else None
        made: dict[int, list[torch.Tensor]] = {}
        failed: list[tuple[Ticket, BaseException]] = []
        for seat, entries in self.batch.reads().items():
            try:
                made[seat] = alone(self._calling, given, entries, size)
            except Exception as error:
                failed.append((self.seats[seat][0], bare(told(error, size))))
        for ticket, reason in failed:
            self._failed(ticket, reason)
        if failed:  # without them the others may be called together
            self.apart = self._apart_next = 1
            self.batch.inputs()
        if not self.batch.calls:
            return []
        # Those who failed still have their entries, which nobody reads.
        like, count = next(iter(made.values()), given[:1]), self.batch.calls
        outs = [part.new_zeros(count, *part.shape[1:]) for part in like]
        for seat, entries in self.batch.reads().items():
            for out, part in zip(outs, made[seat], strict=True):
                out[list(entries)] = part
        return outs

    def _note(self) -> float:
        """Keeps how the network was called for the row that was done, and tries a size that is new; the
        seconds that this took."""
        packing, probe = self.batch.called, self.probe
        way = Way(self.batch.stages.size(packing.count))
        agrees = self.exact or (self._way == "whole" and probe and probe.agrees(way.size))
        if agrees or not packing.count:
            self._record.skip()
            return 0.0
        if self._way == "apart" and not self.fixed:
            way = Way(0)
        elif self._way == "parts":
            way = Way(way.size, self.most, packing.count)
        self._record.add(packing, way)
        size = 0 if way.most else way.size
        if probe is None or not size or size in probe.found:
            return 0.0
        began = perf_counter()
        probe.look(size)
        if probe.reason and self.served.capacity > 1:
            raise EngineError(probe.reason)
        return perf_counter() - began

    @property
    def _calling(self) -> Call:
        return self.batch.stages.calling or self.network

    def _free(self, seat: int) -> None:
        del self.seats[seat]
        self.batch.release(seat)
        self._record.leave(seat)

    def _fail_all(self, error: Exception) -> None:
        for ticket in {ticket for ticket, _ in self.seats.values()}:
            self._failed(ticket, error)

    def _harvest(self, ended: list[int], done: list[tuple[Ticket, int, torch.Tensor]]) -> None:
        """Reads who came to the end, into `done`; who cannot be read keeps the seat."""
        for seat, fine in zip(ended, self.batch.finite(ended), strict=True):
            if seat not in self.seats:  # of a request that another of its samples ended
                continue
            ticket, sample = self.seats[seat]
            if sample < 0:
                self._free(seat)
                continue
            if (course := ticket.courses.get(sample)) is not None and course.error is not None:
                self._failed(ticket, bare(course.error))
                continue
            parts = 1 if ticket.request.encoding is None else self.network.process.parts
            made = self.batch.read([seat], parts)
            rows = ticket.branches(sample)
            if self.bucket is None and rows and (met := self._record.of(seat, rows)):
                ticket.calls[sample] = met
            self._free(seat)
            if fine:
                done.append((ticket, sample, made))
            else:
                self._failed(
                    ticket,
                    NonFinite(
                        f"the sample of seed {ticket.request.seeds[sample]} met a value that is not finite: "
                        "check the weights, the dtype and the guidance scale"
                    ),
                )

    def _tell(self) -> None:
        """Rows and previews, to who reads them."""
        for seat, (ticket, sample) in self.seats.items():
            if ticket.handle.watched and sample >= 0:
                ticket.tell(sample, self.batch.row(seat), partial(self.batch.denoised, seat))
