"""`Queue`: priorities that age, submitters who share, and the order of arrival."""

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_engine.workers.queue import Queue


@dataclass(eq=False)
class One:
    name: str = ""
    key: str = ""
    priority: float = 0.0
    arrived: float = 0.0
    cost: int = 1
    gone: bool = field(default=False)


def names(queue, now=0.0):
    found = []
    while (one := queue.pop(now)) is not None:
        found.append(one.name)
    return "".join(found)


def filled(*ones, aging=10.0, now=0.0):
    queue = Queue(aging)
    for one in ones:
        queue.put(one, now)
    return queue


def test_higher_priorities_come_first_and_then_who_came_first():
    assert names(filled(One("a"), One("b", priority=2), One("c", priority=2), One("d"))) == "bcad"


def test_submitters_share_by_what_they_cost():
    ones = [One("a", "x", cost=3), One("b", "x"), One("c", "y"), One("d", "y"), One("e", "y")]
    assert names(filled(*ones)) == "acdeb"


def test_a_priority_counts_more_than_what_one_had():
    queue = filled(One("a", "x", cost=9), One("b", "y"), One("c", "x"))
    assert queue.pop(0.0).name == "a"
    queue.put(One("d", "x", priority=1), 0.0)
    assert names(queue) == "dbc"


def test_who_comes_back_starts_level():
    queue = filled(*(One(str(i), "x") for i in range(6)))
    assert [queue.pop(0.0).name for _ in range(3)] == ["0", "1", "2"]
    for name in "ab":
        queue.put(One(name, "y"), 0.0)
    assert names(queue) == "3a4b5", "y pays for nothing that it had no part in"


def test_age_raises_a_priority():
    queue = filled(One("old", arrived=0.0), aging=10.0)
    queue.put(One("new", priority=2, arrived=15.0), 15.0)
    assert names(queue, 16.0) == "newold"
    queue = filled(One("old", arrived=0.0), aging=10.0)
    queue.put(One("new", priority=2, arrived=35.0), 35.0)
    assert names(queue, 35.0) == "oldnew"


def test_who_leaves_is_not_given_out():
    ones = [One(name, key) for name, key in zip("abcd", "xxyy", strict=True)]
    queue = filled(*ones)
    for one in (ones[0], ones[2], ones[3], ones[3], One("z", "none")):
        queue.remove(one)
    assert len(queue) == 1 and queue.peek(0.0) is ones[1] and names(queue) == "b"
    assert queue.peek(0.0) is None


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_whatever_is_done_everybody_comes_out_once(seed):
    draw, queue, here, out, now = random.Random(seed), Queue(5.0), [], [], 0.0
    for number in range(draw.randrange(60)):
        now += draw.random() * 3
        match draw.randrange(4):
            case 0 | 1:
                key, cost = draw.choice("xyz"), draw.randrange(9)
                here.append(One(str(number), key, draw.choice([-1, 0, 2]), now, cost))
                queue.put(here[-1], now)
            case 2 if here:
                queue.remove(here.pop(draw.randrange(len(here))))
            case _:
                peeked, one = queue.peek(now), queue.pop(now)
                assert peeked is one and (one is None) == (not here)
                if one is not None:
                    here.remove(one)
                    out.append(one)
        assert len(queue) == len(here) and set(queue.requests()) == set(here)
    assert len(out) == len(set(out))
