"""What is kept of a sample while it runs, and what its plan does for that."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import checks
from ..executors.job import Job, NoiseSource
from ..ops import layout
from ..plan import Plan, Row
from ..plan.linear import raw
from .transition import transitions

RECORDS = ("log_prob", "trajectory", "noise")
WANTED = "give some of 'log_prob', 'trajectory' and 'noise'"


def records(given: Any) -> tuple[str, ...]:
    """The names of what is to be recorded. Raises ValueError on others."""
    names = (given,) if isinstance(given, str) else checks.entries("record", given, WANTED)
    if unknown := [name for name in names if name not in RECORDS]:
        raise ValueError(f"record={list(names)}: {', '.join(map(repr, unknown))} is none; {WANTED}")
    return tuple(name for name in RECORDS if name in names)


def objection(plan: Plan, record: Collection[str], noise: Any, mask: Tensor | None) -> str | None:
    """Why a run cannot be recorded so, as a sentence; None where it can."""
    if plan.guiders:
        return f"{', '.join(plan.guiders)} gives rows other weights than the plan's; leave the guider out"
    drawn = transitions(plan)
    if "log_prob" in record and not drawn:
        return (
            f"{plan.name!r} draws nothing after its first state here, and so has no log_prob; take a "
            "stochastic solver, such as 'flow_sde', 'cps' or 'ddim' with eta=1"
        )
    if isinstance(noise, str):
        return (
            "noise='brownian' makes a row's normals of those of others, and a row's own density is recorded; "
            "leave noise out"
        )
    if mask is not None and not bool(((mask == 0) | (mask == 1)).all()):
        return "a mask between 0 and 1 mixes what is drawn with what is kept; give one of zeros and ones"
    for i, row in enumerate(plan.rows):
        if row.call is None and row.p:
            return f"row {i} forecasts its call, which a policy's density is made of; leave forecast out"
        if row.learned and any(row.e):
            return f"row {i} has a learned variance and uses raw, and one of them alone is kept"
        if row.known and i in drawn and len(drawn[i].slots) > 1:
            return f"row {i} keeps a known region and draws several slots"
    if plan.learned and plan.slots == layout.SLOTS:
        return f"{plan.name!r} has a learned variance and no free slot to keep it in"
    return None


def recordable(plan: Plan) -> Plan:
    """The plan, with the output that a learned variance is made of kept in a slot of its own."""
    if not plan.learned:
        return plan
    if "recordable" not in plan.packed:

        def keep(row: Row) -> Row:
            if row.learned is None:
                return row
            e = tuple(float(j == row.learned[2]) for j in range(len(row.q)))
            return replace(row, e=e, new=row.new | {plan.slots: raw})

        plan.packed["recordable"] = plan.replace_rows([keep(row) for row in plan.rows])
    return plan.packed["recordable"]


def kept_slots(plan: Plan) -> tuple[int, ...]:
    """The slots that a trajectory holds: x, what else row 0 makes, and all that rows draw."""
    drawn = {slot for transition in transitions(plan).values() for slot in transition.slots}
    return tuple(sorted({0} | plan.rows[0].new.keys() | drawn))


class Kept(NamedTuple):
    """What tapes keep of a plan.

    slots    the kept ones, and the row that first writes each
    learned  the rows with a learned variance
    """

    slots: dict[int, int]
    learned: frozenset[int]


def _kept(plan: Plan) -> Kept:
    """Found once, and kept with the plan."""
    if "kept" not in plan.packed:
        plan.packed["kept"] = Kept(
            {k: _first_written(plan, k) for k in kept_slots(plan)},
            frozenset(i for i, row in enumerate(plan.rows) if row.learned),
        )
    return plan.packed["kept"]


def _first_written(plan: Plan, slot: int) -> int:
    return next(i for i, row in enumerate(plan.rows) if slot in row.new)


class Tape:
    """Hears of a sample's rows, and of the normals that it was given.

    states     by row [K C, *pixel], the kept slots on the channel axis; zeros before one is written
    variances  by row, the output that its learned variance is made of
    noise      by row and m, given normals

    What a row says again takes the place of what it said.
    """

    def __init__(self, plan: Plan, states: bool) -> None:
        kept = _kept(plan)
        self._slots = kept.slots if states else {}
        self._variance = plan.slots - 1  # where `recordable` keeps it
        self._learned = kept.learned
        self.states: dict[int, Tensor] = {}
        self.variances: dict[int, Tensor] = {}
        self.noise: dict[tuple[int, int], Tensor] = {}

    def of(self, job: Job) -> Job:
        """The job, heard by this tape."""
        noise = None if job.noise is None else self._listening(job.noise)
        return replace(job, noise=noise, on_slots=self if self._slots or self._learned else None)

    def __call__(self, row: int, slots: Tensor) -> None:
        if self._slots:
            # A seat's slot holds what others left there until a row of its own writes it.
            parts = (
                slots[k] if row >= at else torch.zeros_like(slots[k])
                for k, at in self._slots.items()
            )
            self.states[row] = torch.cat(list(parts))
        if row in self._learned:
            self.variances[row] = slots[self._variance].clone()

    def _listening(self, source: NoiseSource) -> NoiseSource:
        """A source of normals that also come here."""

        def given(row: int, m: int) -> Tensor:
            made = source(row, m)
            if isinstance(made, Tensor):
                self.noise[row, m] = made.to(torch.float32, copy=True)  # as a row reads it
            return made

        return given


def tapes(record: Collection[str], plans: Sequence[Plan]) -> list[Tape]:
    """One for each of some samples, by their plans; none where nothing is recorded."""
    return [Tape(plan, "trajectory" in record) for plan in plans] if record else []


def stacked(tapes: Sequence[Tape]) -> Tensor:
    """The trajectories of samples, [n, R, K C, *pixel]."""
    return torch.stack([torch.stack(list(tape.states.values())) for tape in tapes])
