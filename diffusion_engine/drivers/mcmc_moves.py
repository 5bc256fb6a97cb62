"""Markov chains at one level, whose density is p with the score s(x) = grad log p(x):

    ULA    x <- x + e s(x) + sqrt(2 e) z
    MALA   x' as ULA, with q(x' | x) = N(x + e s(x), 2 e); x <- x' with probability
           min(1, p(x') q(x | x') / (p(x) q(x' | x)))                      (Roberts & Tweedie 1996)
    HMC    v <- c v + sqrt(1 - c^2) z;  L times  v += e/2 s(x), x += e v, v += e/2 s(x);  (x, v) is kept with
           probability min(1, exp(log p(x') - log p(x) - (|v'|^2 - |v|^2) / 2)), else x and -v (Neal 2011)
    U-HMC  the same, always kept

A momentum of mass m with steps e is one of mass 1 with steps e / m. Each is a lead within a lead: it is given
what is seen at the first x, and returns what is seen at the last, where the call of the row behind the chain
was made, and how many moves it accepted.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from functools import partial

from ..executors.course import Move, Seen
from ..plan.linear import Linear, denoised, normal, slot, x
from .mcmc_levels import Level, score, square

Moves = Generator[Move, Seen, tuple[Seen, int]]
# What holds a point of a chain: the point, and its estimate of x0, of which its score is made.
Held = tuple[Linear, Linear]
NEW: Held = (x, denoised)  # where the call was made


def ula(level: Level, seen: Seen, e: float, steps: int) -> Moves:
    """The unadjusted Langevin algorithm, one call a step."""
    moved = x + e * score(level.at, *NEW) + math.sqrt(2.0 * e) * normal(0)
    for n in range(steps):
        row = level.row(seen, {0: moved}, n)
        seen = yield Move(row, level.call if n + 1 < steps else level.after)
    return seen, steps


def mala(level: Level, seen: Seen, e: float, steps: int) -> Moves:
    """Langevin proposals that are accepted or not, one call a step and one more; slots 1 and 2 hold x and its
    estimate while slot 0 holds x'."""

    def mean(x: Linear, d: Linear) -> Linear:
        return x + e * score(level.at, x, d)

    old: Held = (slot(1), slot(2))
    there, back = x - mean(*old), slot(1) - mean(*NEW)  # of x' from q(. | x), of x from q(. | x')
    at, log_p, accepted = NEW, level.log_density(seen), 0
    for n in range(steps):
        proposed = mean(*at) + math.sqrt(2.0 * e) * normal(0)
        seen = yield Move(level.row(seen, {0: proposed, 1: at[0], 2: at[1]}, n), level.call)
        proposals = (square(there, seen) - square(back, seen)) / (4.0 * e)
        new_log_p = level.log_density(seen)
        at = old
        if level.accepts(new_log_p - log_p + proposals, n):
            at, log_p, accepted = NEW, new_log_p, accepted + 1
    seen = yield Move(level.row(seen, {0: at[0]}, steps), level.after)
    return seen, accepted


def hmc(
    level: Level, seen: Seen, e: float, steps: int, leapfrogs: int, damping: float, adjusted: bool
) -> Moves:
    """Hamiltonian moves, `leapfrogs` calls each, and one more where they are adjusted; slot 1 holds the
    momentum half a step behind, slots 2 to 4 x, its estimate and the momentum at the start of the move."""
    force = partial(score, level.at)
    old: Held = (slot(2), slot(3))
    at, v, keep = NEW, Linear(), 0.0  # the first momentum is fresh
    log_p, accepted = level.log_density(seen) if adjusted else 0.0, 0
    for n in range(steps):
        drawn = keep * v + math.sqrt(1.0 - keep**2) * normal(0)
        half, keep = drawn + 0.5 * e * force(*at), damping
        new = {0: at[0] + e * half, 1: half}
        if adjusted:
            new |= {2: at[0], 3: at[1], 4: drawn}
        for i in range(leapfrogs):
            last = not adjusted and n + 1 == steps and i + 1 == leapfrogs
            row = level.row(seen, new, n)
            seen = yield Move(row, level.after if last else level.call)
            half = slot(1) + e * force(*NEW)
            new = {0: x + e * half, 1: half}
        at, v = NEW, slot(1) + 0.5 * e * force(*NEW)
        if not adjusted:
            continue
        new_log_p = level.log_density(seen)
        kinetic = 0.5 * (square(v, seen) - square(slot(4), seen))
        if level.accepts(new_log_p - log_p - kinetic, n):
            log_p, accepted = new_log_p, accepted + 1
        else:
            at, v = old, -slot(4)
    if adjusted:
        seen = yield Move(level.row(seen, {0: at[0]}, steps), level.after)
    return seen, accepted if adjusted else steps
