"""Whose turn it is, of the lanes that have something to move."""

from __future__ import annotations

from collections.abc import Sequence

from .lane import Lane

SWITCHES = 4  # switches of weights take a quarter of the time at most, whatever they cost


def turn(lanes: Sequence[Lane], now: float, aging: float) -> Lane:
    """The lane that had least of the time for each entry that it calls the network with, so that lanes get
    time in proportion to their entries (weighted fair queueing: Demers, Keshav and Shenker 1989). One that
    has waited for `aging` seconds goes before all that have not.

    Where a lane's weights are not in place, everybody waits while they are put there: it is passed over until
    its own waiting has cost so many times that, or until it has waited for `aging` seconds.

    lanes  that are busy
    now    on the engine's clock
    """
    if len(lanes) == 1:
        return lanes[0]
    everybody = sum(lane.load for lane in lanes)

    def due(lane: Lane) -> bool:
        cost, waited = lane.served.weights.cost(lane.adapter), now - lane.turned
        dear = SWITCHES * cost * everybody
        return not cost or waited > aging or waited * lane.load > dear

    def before(lane: Lane) -> tuple[int, float]:
        return -int((now - lane.turned) / aging), lane.had

    return min([lane for lane in lanes if due(lane)] or lanes, key=before)


def join(lane: Lane, lanes: Sequence[Lane], now: float) -> None:
    """A lane has something to move again: it starts level with those that are busy.

    lanes  that are busy
    """
    lane.turned = now
    lane.had = max(lane.had, min((other.had for other in lanes), default=lane.had))
