"""`Lane`: a batch of one network, who sits in it, and who waits for a seat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import torch

from ..executors import Batch, BatchFull, Capacity, GraphError
from ..networks.network import ScoreNetwork
from ..ops import layout
from .calls import alone, in_parts, out_of_memory
from .errors import EngineError, NonFinite
from .events import Event
from .ticket import Ticket
from .waiting import Waiting

ROWS = 4096  # of plans, some 1.5 MB

Failed = Callable[[Ticket, BaseException | None], None]


def roomy(capacity: Capacity, seats: int, guided: bool) -> Capacity:
    """Room for requests of one image size, kind of condition and kind of step: what else differs between
    solvers, step counts and guidance fits into it.

    guided  whether the network has an unconditional branch
    """
    entries = max(capacity.entries, 2 if guided else 1)
    rows = max(ROWS, 1 << (2 * capacity.rows - 1).bit_length())
    return replace(
        capacity,
        seats=seats,
        rows=rows,
        room=seats * entries,
        slots=max(capacity.slots, layout.SLOTS),
        outputs=capacity.outputs // capacity.entries * entries,
        entries=entries,
        normals=layout.NORMALS,
        branches=max(capacity.branches, entries),
        draws=layout.NORMALS + 1 if capacity.draws else 0,
    )


class Lane:
    """Its turns are the engine's; it moves all of its seats by one row in each.

    failed   ends a request that cannot go on, with the reason
    row_s    seconds that a row takes, smoothed; 0 before the first
    turned   when it had its last turn, on the engine's clock
    """

    def __init__(
        self, network: ScoreNetwork, batch: Batch, waiting: Waiting, failed: Failed
    ) -> None:
        self.network, self.batch, self.waiting, self._failed = network, batch, waiting, failed
        self.fixed = batch.capacity.fixed
        self.seats: dict[int, tuple[Ticket, int]] = {}
        self.most = batch.capacity.room  # entries of a call, fewer once memory ran out
        self.apart = False  # samples are called one by one: together they failed, alone they do not
        self.row_s = 0.0
        self.turned = 0.0

    @property
    def work(self) -> float:
        """What a row of it moves: entries x pixels."""
        return self.batch.entries

    @property
    def busy(self) -> bool:
        return bool(self.seats) or len(self.waiting) > 0

    def admit(self, now: float) -> list[Ticket]:
        """Gives the free seats to who waits; the requests that have their first seat now."""
        started = []
        while len(self.seats) < self.batch.capacity.seats and (ticket := self.waiting.pop(now)):
            sample = ticket.admitted
            try:
                seat = self.batch.admit(ticket.job(sample))
            except BatchFull:  # its rows have no room among those of the others
                self.waiting.put(ticket, now)
                break
            except Exception as error:
                self._failed(ticket, error)
                continue
            self.seats[seat] = ticket, sample
            ticket.admitted, ticket.waited = sample + 1, now
            if sample == 0:
                started.append(ticket)
            self.waiting.charge(ticket, ticket.cost(sample))
            if ticket.waiting:
                self.waiting.put(ticket, now)
        return started

    def release(self, ticket: Ticket) -> int:
        """Frees the seats of a request that ended; how many."""
        gone = [seat for seat, (held, _) in self.seats.items() if held is ticket]
        for seat in gone:
            del self.seats[seat]
            self.batch.release(seat)
        return len(gone)

    def step(self) -> list[tuple[Ticket, int, torch.Tensor]]:
        """One row of every seat; the samples that are done, as (request, which, [1, *shape])."""
        began = perf_counter()
        try:
            ended = self._moved()
        except Exception as error:
            self._fail_all(error)
            return []
        self._tell()
        done = self._harvest(ended) if ended else []
        took = perf_counter() - began
        self.row_s = took if not self.row_s else 0.9 * self.row_s + 0.1 * took
        return done

    def _moved(self) -> list[int]:
        if not self.apart and self.most >= self.batch.capacity.room:
            try:
                return self.batch.step()
            except GraphError:
                raise
            except Exception as error:
                return self._recovered(error)
        return self.batch.step(outs=self._apart() if self.apart else self._halved())

    def _recovered(self, error: Exception) -> list[int]:
        """The step that failed, done in another way. Nobody has moved."""
        blamed = [ticket for ticket, _ in self.seats.values() if ticket.error is not None]
        if blamed:
            for ticket in set(blamed):
                self._failed(ticket, ticket.error or error)
                self.release(ticket)
            return self.batch.step()
        if out_of_memory(error):
            if self.fixed:
                raise EngineError(
                    f"memory ran out in a call of {self.batch.capacity.room} entries, and batch='fixed' "
                    "makes no others: give the engine a smaller capacity, or batch='bucket'"
                ) from error
            self.most = max(1, self.batch.calls // 2)
            return self.batch.step(outs=self._halved())
        return self.batch.step(outs=self._apart(first=error))

    def _halved(self) -> list[torch.Tensor]:
        """The outputs of the coming call in parts that memory suffices for."""
        given = self.batch.inputs()
        while given is not None:
            try:
                return in_parts(self.network, given, self.most)
            except Exception as error:
                if not out_of_memory(error) or self.most == 1:
                    raise
                self.most = max(1, self.most // 2)
        return []

    def _apart(self, first: Exception | None = None) -> list[torch.Tensor]:
        """The outputs of the coming call, each sample called alone; whose call fails, fails."""
        given = self.batch.inputs()
        if given is None:
            if first is not None:
                raise first
            return []
        size = self.batch.capacity.room if self.fixed else None
        made: dict[int, list[torch.Tensor]] = {}
        for seat, entries in self.batch.reads().items():
            try:
                made[seat] = alone(self.network, given, entries, size)
            except Exception as error:
                self._failed(self.seats[seat][0], error)
        for ticket in {ticket for ticket, _ in self.seats.values() if ticket.handle.ended}:
            self.release(ticket)
        self.apart = first is None or len(made) == len(self.seats)
        self.batch.inputs()  # of those who stayed
        where = sorted(
            (entry, seat, k)
            for seat, entries in self.batch.reads().items()
            for k, entry in enumerate(entries)
        )
        count = len(next(iter(made.values()))) if made else 0
        return [torch.stack([made[seat][o][k] for _, seat, k in where]) for o in range(count)]

    def _fail_all(self, error: Exception) -> None:
        for ticket in {ticket for ticket, _ in self.seats.values()}:
            self._failed(ticket, error)
            self.release(ticket)

    def _harvest(self, ended: list[int]) -> list[tuple[Ticket, int, torch.Tensor]]:
        done, finite = [], self.batch.finite(ended)
        for seat, fine in zip(ended, finite, strict=True):
            ticket, sample = self.seats.pop(seat)
            parts = 1 if ticket.request.encoding is None else self.network.process.parts
            made = self.batch.read([seat], parts)
            self.batch.release(seat)
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
        return done

    def _tell(self) -> None:
        """Rows and previews, to who reads them."""
        for seat, (ticket, sample) in self.seats.items():
            if not ticket.handle.watched:
                continue
            rows, coming = len(ticket.plans[sample].rows), self.batch.row(seat)
            row = rows - 1 if coming is None else coming - 1
            if ticket.preview and row and row % ticket.preview == 0:
                denoised = self.batch.denoised(seat)
                ticket.handle.tell(Event("preview", sample, row, rows, denoised))
            else:
                ticket.handle.tell(Event("row", sample, row, rows))
