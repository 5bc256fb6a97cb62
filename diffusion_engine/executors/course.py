"""`Course`: what leads seats whose rows are not known beforehand, between a network's call and the step.

A lead is a generator. It yields a `Move` for its seat, what the call that was made becomes and the row whose
call comes next; and it is sent what the seat then holds, a `Seen`, once that call was made:

    seen = yield Move(first, then=row)     # row 0 calls nothing
    while ...:
        seen = yield Move(replace(row, new=...), then=row)
    yield Move(last, then=None)            # the sample is done
    return report

A lead of several seats yields a list of moves, one a seat, and is sent a list; they end together.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..ops import layout
from ..ops.noise import NoiseArgs
from ..ops.registry import resolve
from ..plan import Plan, Row
from ..plan.linear import x
from ..processes import Point
from .job import Job

Lead = Generator[Any, Any, Mapping[str, Any] | None]
EARLY = "its lead returned before a move without `then`"
STAY = Row(call=None, new={0: x})  # a row that calls nothing and leaves x alone


class LeadError(ValueError):
    """Why a lead gave its sample up, in a sentence that whoever asked for it may read."""


@dataclass(frozen=True, slots=True)
class Move:
    """A step of a seat.

    row   what the call that was made becomes; the call itself is that of `then` of the move before
    then  the row whose call is made next, None where the sample is done. Of it the call, the branches and
          what makes `denoised` count: what its slots become the next move says
    """

    row: Row
    then: Row | None


@dataclass(frozen=True, eq=False)
class Seen:
    """What a seat holds once its call was made. Tensors are views: copy what is kept.

    row    whose call it was
    slots  [K, C, *pixel] before the step; what is written there the step reads
    outs   [C, *pixel] of each output of the row, in the dtype of the slots
    seed   of the sample
    """

    row: Row
    slots: Tensor
    outs: list[Tensor]
    seed: int

    @classmethod
    def of(
        cls, row: Row, slots: Tensor, outs: Sequence[Tensor], entries: Sequence[int], seed: int
    ) -> Seen:
        """Of a seat.

        outs     of the whole call, as the network returned them
        entries  of the call that are the seat's, by branch
        """
        of, channels = dict(zip(row.entries, entries, strict=True)), slots.shape[1]
        made = [
            _block(outs, block, channels)[of[branch]].to(slots.dtype)
            for block, branch in zip(row.channel_blocks, row.branches, strict=True)
        ]
        return cls(row, slots, made, seed)

    @property
    def x(self) -> Tensor:
        """[C, *pixel], slot 0."""
        return self.slots[0]

    @cached_property
    def denoised(self) -> Tensor:
        """[C, *pixel], the estimate of x0 with the bits of the step."""
        made = self._sum((self.row.p, self.slots), (self.row.q, self.outs))
        if self.row.clip:
            made = made.clamp(*self.row.clip)
        return made * self.row.scale if self.row.scale != 1.0 else made

    @cached_property
    def raw(self) -> Tensor:
        """[C, *pixel], the row's weights `e` of the outputs."""
        return self._sum((self.row.e, self.outs))

    def normal(self, key: int, m: int = 0) -> Tensor:
        """[C, *pixel], the normal m that a row of this key draws."""
        return self.normals((key,), m)[0]

    def normals(self, keys: Sequence[int], m: int = 0) -> Tensor:
        """[len(keys), C, *pixel], the normals m of several keys."""
        like, signed = self.slots[0], self.seed - (self.seed >> 63 << 64)
        seed = torch.tensor([signed], device=like.device)
        made = torch.empty(len(keys), *like.shape, device=like.device)
        for i, key in enumerate(keys):
            resolve("noise", "auto", NoiseArgs(made[i : i + 1], seed))(key, m)
        return made.to(like.dtype)

    def _sum(self, *parts: tuple[Sequence[float], Any]) -> Tensor:
        """Terms one after another from +0, each product and each sum rounded, as the step adds them."""
        total = torch.zeros_like(self.slots[0])
        for weights, values in parts:
            for weight, value in zip(weights, values, strict=False):
                if weight:
                    total = total + torch.tensor(weight, dtype=total.dtype) * value
        return total


class Course:
    """The seats of a lead, and where it is. It is used once.

    lead         the generator
    jobs         of its seats; their plans say what room they take
    samples      the first so many seats hold a sample in the end
    length       rows that it is expected to make, for who shows progress; 0 where nobody knows
    rows, calls  that each seat has done; calls those with one of the network
    evaluations  of the network, all seats and branches
    branches     of each row of the first seat those that it called
    state        the law of the first seat's slot 0 after its last row
    report       what the lead returned
    error        what it raised, which ends it
    """

    def __init__(self, lead: Lead, jobs: Sequence[Job], samples: int = 1, length: int = 0) -> None:
        self.lead, self.jobs, self.samples, self.length = lead, tuple(jobs), samples, length
        self.rows = self.calls = self.evaluations = 0
        self.branches: list[tuple[int, ...]] = [()]
        self.state: Point | None = None
        self.report: dict[str, Any] = {}
        self.error: Exception | None = None
        self.ended = False

    def begin(self) -> list[Move]:
        """The first moves. Raises ValueError where the lead makes none."""
        try:
            return self._kept(next(self.lead))
        except StopIteration:
            raise ValueError(EARLY) from None

    def move(self, seen: list[Seen]) -> list[Move]:
        """What its calls become; where the lead raises, the seats end where they are."""
        try:
            return self._kept(self.lead.send(seen[0] if self._alone else seen))
        except StopIteration:
            self.error = ValueError(EARLY)
        except OverflowError as error:  # of what is decided in float64: no network's
            self.error = LeadError(
                f"a number of what leads the sample overflowed ({error}); give smaller options"
            )
        except Exception as error:
            self.error = error
        self.ended = True
        return [Move(STAY, None) for _ in self.jobs]

    def close(self) -> None:
        """Nobody waits for it any more."""
        if not self.ended:
            self.ended = True
            self.lead.close()

    def _kept(self, given: Any) -> list[Move]:
        self._alone = isinstance(given, Move)
        moves: list[Move] = [given] if self._alone else list(given)
        if len(moves) != len(self.jobs) or len({move.then is None for move in moves}) != 1:
            raise ValueError(
                f"its lead made {len(moves)} moves for {len(self.jobs)} seats: give one for each, and end "
                "all together"
            )
        for move, job in zip(moves, self.jobs, strict=True):
            _check_room(move, job.plan)
        self.state = moves[0].row.state or self.state
        thens = [move.then for move in moves if move.then is not None]
        self.rows += 1
        self.calls += any(then.call is not None for then in thens)
        self.evaluations += sum(len(then.entries) for then in thens)
        self.branches += [then.branches for then in thens[:1]]
        if not thens:
            self._finish()
        return moves

    def _finish(self) -> None:
        self.ended = True
        try:
            self.lead.send(None)
        except StopIteration as done:
            self.report = dict(done.value or {})
        else:
            raise ValueError("its lead goes on after a move without `then`")


def _block(outs: Sequence[Tensor], block: int, channels: int) -> Tensor:
    """A channel block of the network's outputs, whose channels count on."""
    first = block * channels
    for out in outs:
        if first < out.shape[1]:
            return out[:, first : first + channels]
        first -= out.shape[1]
    raise ValueError(f"the network returned no channel block {block}, which a row reads")


def _check_room(move: Move, plan: Plan) -> None:
    """Raises ValueError where a move takes more than the plan of its seat says."""
    row, then = move.row, move.then
    draws = max((m + 1 for m in range(layout.NORMALS) if row.draws(m)), default=0)
    fits = max(row.new) < plan.slots and draws <= plan.normals
    if then is not None:
        fits &= len(then.entries) <= plan.entries and len(then.branches) <= plan.outputs
    if not fits:
        raise ValueError(
            f"a move of its lead takes more slots, normals, entries or outputs than its plan {plan.name!r} "
            "has"
        )
