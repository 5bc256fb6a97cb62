"""Whose turn it is, of the lanes that have something to move."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from .lane import Lane

SWITCHES = 4  # switches of weights take a quarter of the time at most, whatever they cost


class Turns:
    """The lane of the highest level goes first: the highest priority of who sits or waits there, raised by
    one for each `aging` seconds that the lane waits for a turn, so that nobody starves. Of one level those go
    first whom age raised to it.

    Among lanes of one priority, the one whose virtual time `had` is least: a row adds its seconds over the
    lane's weight, so that lanes get time in proportion to their weights (weighted fair queueing: Demers,
    Keshav and Shenker 1989). With e[l, k] the entries that the seats of a submitter k may call the network
    with in lane l, the weight is w[l] = sum over k of e[l, k] / sum over lanes m of e[m, k]: each submitter
    weighs 1 in all, in however many lanes. With one submitter time is in proportion to entries.

    Where a lane's weights are not in place, everybody waits while they are put there: among those of its
    level it is passed over until its own waiting has cost so many times that, or until it has waited for
    `aging` seconds.

    aging  seconds, more than 0
    """

    def __init__(self, aging: float) -> None:
        self._aging = aging
        self._time = 0.0  # virtual: the most that any lane had at one of its turns

    def next(self, lanes: Sequence[Lane], now: float) -> Lane:
        """Whose turn it is.

        lanes  that are busy
        now    on the engine's clock
        """
        if len(lanes) == 1:
            return lanes[0]
        priorities = [_priority(lane) for lane in lanes]
        self._rank(lanes, priorities)
        levels = [
            math.floor(priority + (now - lane.turned) / self._aging)
            for lane, priority in zip(lanes, priorities, strict=True)
        ]
        highest = max(levels)
        first = [lane for lane, level in zip(lanes, levels, strict=True) if level == highest]
        chosen = min(self._due(first, now) or first, key=lambda lane: (lane.rank, lane.had))
        self._time = max(self._time, chosen.had)
        return chosen

    def join(self, lane: Lane, lanes: Iterable[Lane], now: float) -> None:
        """A lane has something to move again: it starts level with those of its priority, and where there
        are none at the virtual time (start-time fair queueing: Goyal, Vin and Cheng 1996).

        lanes  that are busy
        """
        lane.turned, lane.had = now, max(lane.had, self._least(lane.rank, lanes))

    def charge(self, lane: Lane, lanes: Sequence[Lane]) -> None:
        """A lane is about to do a row; alone it owes nobody.

        lanes  that are busy
        """
        if len(lanes) > 1:
            lane.had += lane.row_s / _weight(lane, lanes)

    def _rank(self, lanes: Sequence[Lane], priorities: Iterable[float]) -> None:
        """A lane whose priority has changed starts level with the others of the new one: what it had under
        another is no debt."""
        ranks = [math.floor(priority) for priority in priorities]
        both = list(zip(lanes, ranks, strict=True))
        stay = [lane for lane, rank in both if lane.rank == rank]
        if len(stay) == len(lanes):
            return
        for lane, rank in both:
            if lane.rank != rank:
                lane.rank, lane.had = rank, self._least(rank, stay)

    def _least(self, rank: int, lanes: Iterable[Lane]) -> float:
        return min((lane.had for lane in lanes if lane.rank == rank), default=self._time)

    def _due(self, lanes: Sequence[Lane], now: float) -> list[Lane]:
        """Those whose weights are in place, or are worth to be put there."""
        everybody = sum(lane.load for lane in lanes)

        def due(lane: Lane) -> bool:
            cost, waited = lane.served.weights.cost(lane.adapter), now - lane.turned
            dear = SWITCHES * cost * everybody
            return not cost or waited > self._aging or waited * lane.load > dear

        return [lane for lane in lanes if due(lane)]


def _priority(lane: Lane) -> float:
    """The highest of who sits or waits there."""
    seated = [ticket.priority for ticket, _ in lane.seats.values()]
    return max([*seated, lane.waiting.priority])


def _weight(lane: Lane, lanes: Iterable[Lane]) -> float:
    """The sum of its shares of each submitter's entries."""
    entries = Counter[str]()
    for other in lanes:
        _count(other, entries)
    own = _count(lane, Counter())
    return sum(count / entries[key] for key, count in own.items())


def _count(lane: Lane, entries: Counter[str]) -> Counter[str]:
    """Adds the entries of each submitter's seats; a sample that calls nothing counts as one."""
    for ticket, sample in lane.seats.values():
        entries[ticket.key] += ticket.plans[sample].entries or 1
    return entries
