"""Calls of a network at sizes that were recorded: what a recipe's `bucket` and `calls` say, done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat

import torch
from torch import Tensor

from ..executors import Batch
from ..executors.base import After
from ..executors.batch import plain
from ..executors.buffers import Inputs, some
from ..executors.course import Course
from ..plan import Plan

# (calls, size, place, size, place, ...): so many calls in a row, each of whose entries was at a place of a
# call of a size.
Run = Sequence[int]
# Of an entry: the size of its call, and its place there, or None where any will do.
Where = tuple[int, int | None]


def finish(
    call: Callable[..., Sequence[Tensor]],
    batch: Batch,
    plans: Sequence[Plan | Course],
    bucket: int | None,
    calls: Sequence[Sequence[Run]] | None,
    after: After | None = None,
) -> None:
    """Steps a batch to its end, whose network is called as it was when the samples were made.

    call     the network
    plans    of seats 0, 1, ..., or the courses that lead them
    bucket   entries of every call, or None
    calls    the runs of each sample, where there is no bucket
    Raises ValueError where the runs are not those of the plans.
    """
    if bucket is not None:
        follows: list[Iterator[list[Where]]] = [
            repeat([(bucket, None)] * entries) for plan in plans for entries in _entries(plan)
        ]
    else:
        assert calls is not None
        for i, (plan, sample) in enumerate(zip(plans, calls, strict=True)):
            _check(i, plan, sample)
        follows = [chain.from_iterable(map(_expanded, sample)) for sample in calls]
    while batch.live:
        given, outs = batch.inputs(), list[Tensor]()
        if given is not None:
            wanted: dict[int, Where] = {}
            for seat, entries in batch.reads().items():
                wanted |= zip(entries, next(follows[seat], ()), strict=False)
            if len(wanted) < batch.calls:
                raise ValueError(
                    "the recipe's calls end before the samples do: replay it with the network and the "
                    "options that it was made with, or give calls=None"
                )
            with plain():  # as a batch calls it: who wants derivatives would be given another form
                outs = called(call, given, [wanted[entry] for entry in range(len(wanted))])
        batch.step(outs=outs)
        if after is not None:
            after(batch)


def called(
    call: Callable[..., Sequence[Tensor]], given: Inputs, wanted: Sequence[Where]
) -> list[Tensor]:
    """The outputs of a call of some entries, made by calls in which each has its size and its place.

    given    of all entries
    wanted   of each
    Entries that do not stand in one another's way share a call. The rest of it is copies of one of them.
    """
    outs: list[list[Tensor]] = [[] for _ in wanted]
    groups = _grouped(wanted)
    for size, group in groups:
        filler = next(iter(group.values()))
        made = call(*some(given, [group.get(place, filler) for place in range(size)]))
        if len(groups) > 1:  # the next may overwrite them
            made = [out.clone() for out in made]
        for place, entry in group.items():
            outs[entry] = [out[place] for out in made]
    return [torch.stack(column) for column in zip(*outs, strict=True)]


def _grouped(wanted: Sequence[Where]) -> list[tuple[int, dict[int, int]]]:
    """Calls as (size, entry of each place)."""
    groups: list[tuple[int, dict[int, int]]] = []
    for entry, (size, place) in enumerate(wanted):
        for other, group in groups:
            if other == size and (len(group) < size if place is None else place not in group):
                break
        else:
            group = {}
            groups.append((size, group))
        group[len(group) if place is None else place] = entry
    return groups


def _expanded(run: Run) -> Iterator[list[Where]]:
    return repeat(list(zip(run[1::2], run[2::2], strict=True)), run[0])


def _entries(plan: Plan | Course) -> list[int]:
    """The most entries of each seat's calls."""
    return [job.plan.entries for job in plan.jobs] if isinstance(plan, Course) else [plan.entries]


def _check(i: int, plan: Plan | Course, sample: Sequence[Run]) -> None:
    if isinstance(plan, Course):
        if len(plan.jobs) > 1:
            raise ValueError(
                f"calls[{i}] are those of one seat and the sample takes {len(plan.jobs)}; replay with "
                "calls=None"
            )
        return
    made = [len({*branches}) for branches in plan.branches if branches]
    count = sum(run[0] for run in sample)
    entries = sum(run[0] * (len(run) // 2) for run in sample)
    # A run may say any number of calls: they are told one by one where there are as many as are made.
    if count != len(made) or made != [len(run) // 2 for run in sample for _ in range(run[0])]:
        raise ValueError(
            f"calls[{i}] are {count} calls of {entries} entries and the sample makes {len(made)} "
            f"of {sum(made)}: replay the recipe with the network and the options that it was made "
            "with, or give calls=None"
        )
