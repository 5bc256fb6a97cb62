"""Times of several ways to do the same, taken in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from statistics import median
from typing import TypeVar

K = TypeVar("K")

EQUAL = 1.03  # times within this are the same: fewer threads leave more for others
ROUNDS, SECONDS = (3, 15), 0.05  # of turns: at least, at most, and for how long


def in_turns(
    ways: Collection[K], seconds: Callable[[K], float],
    rounds: tuple[int, int] = ROUNDS, budget: float = SECONDS,
) -> dict[K, float]:  # fmt: skip
    """The median seconds of each way; what else the machine does meets all alike.

    seconds  of one call of a way, which it makes
    rounds   of turns, at least and at most
    budget   seconds after which no further turn begins, beyond the least
    """
    least, most = rounds
    spent: dict[K, list[float]] = {way: [] for way in ways}
    began = time.perf_counter()
    for done in range(most):
        if done >= least and time.perf_counter() - began >= budget:
            break
        for way in ways:
            spent[way].append(seconds(way))
    return {way: median(taken) for way, taken in spent.items()}


def clocked(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def fewest(times: Mapping[int, float]) -> int:
    """The least number of threads that is as fast as the fastest, nearly."""
    best = min(times.values())
    return min(n for n, seconds in times.items() if seconds <= EQUAL * best)


def numbers(most: int) -> list[int]:
    """The numbers of threads to try: 1, the powers of two below `most`, and that."""
    return [*(1 << i for i in range((most - 1).bit_length())), most]


def is_count(value: object) -> bool:
    """Whether a value is a number of threads."""
    return type(value) is int and value > 0
