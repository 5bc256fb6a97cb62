"""What a function of k-diffusion is as a table: a plan over its sigmas, and when it draws which noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from torch import Tensor

from ... import checks
from ...executors.lru import Lru
from ...networks.network import ScoreNetwork
from ...ops.philox import STATE
from ...plan import Plan
from ...plan.guidance import classifier_free
from ...processes import EDM
from ...solvers import Solver
from ...solvers.heun import Churned

PROCESS = EDM()
ROWS = 8192  # of plans that are kept, some 7 KB each
SHAPES = 64
WANTED = "give descending levels, as get_sigmas_karras makes them"


@dataclass(frozen=True, eq=False)
class Table:
    """A plan, and what its rows are to k-diffusion's loop.

    plan    begins with a given x
    steps   of every row but the first, which step it makes the first call of: its index in sigmas, or -1
    calls   (sigma, sigma_next) of the noise that the loop draws, in its order
    places  of a row's normal, which of these it is
    """

    plan: Plan
    steps: tuple[int, ...]
    calls: tuple[tuple[float, float], ...]
    places: dict[tuple[int, int], int]


_tables: Lru[tuple, Table] = Lru(ROWS)


def levels(sigmas: Any) -> tuple[float, ...]:
    """The sigmas of a run. Raises ValueError where they rise, or are no levels."""
    given = sigmas.detach().cpu() if isinstance(sigmas, Tensor) else sigmas
    listed = checks.entries("sigmas", given, WANTED)
    made = tuple(checks.number(f"sigmas[{i}]", s) for i, s in enumerate(listed))
    for i, (a, b) in enumerate(pairwise(made), 1):
        if b > a:
            raise ValueError(
                f"sigmas rise at entry {i}, from {a:g} to {b:g}: {WANTED}; encoding is Sampler.encode"
            )
    if made and (made[-1] < 0.0 or 0.0 in made[:-1]):
        raise ValueError(f"sigmas={list(made)}: levels are above 0, and the last may be 0")
    return made


# (rule, sigma, sigma_next) -> what a loop draws in a step to another level than 0, in its order
Draws = Callable[[Any, float, float], list[tuple[float, float]]]


def once(rule: Any, s: float, t: float) -> list[tuple[float, float]]:
    return [(s, t)]


def first_and_whole(rule: Any, s: float, t: float) -> list[tuple[float, float]]:
    """The noise of the part of a step before its middle call, and that of the step."""
    return [(s, s ** (1.0 - rule.r) * t**rule.r), (s, t)]


def table_of(rule: Solver, sigmas: tuple[float, ...], multistep: bool, draws: Draws) -> Table:
    """The table of a solver over sigmas, made once.

    multistep  a step that stays on its level is left out: between predictions at one level there is no slope
    draws      of a step, as `once` and `first_and_whole`
    """
    key = (rule, sigmas, multistep, draws)
    table = _tables.get(key)
    if table is None:
        table = _made(rule, sigmas, multistep, draws)
        _tables.put(key, table, len(table.plan.rows))
    return table


def _made(rule: Solver, sigmas: tuple[float, ...], multistep: bool, draws: Draws) -> Table:
    own = [i for i, (a, b) in enumerate(pairwise(sigmas)) if a != b or not multistep]
    visited = [*(sigmas[i] for i in own), sigmas[-1]]
    points = [PROCESS.at_ratio(g) if g > 0.0 else PROCESS.clean for g in visited]
    about = replace(_network((1,)).parameterisation, unconditional=True)  # where a solver names it
    plan = classifier_free(rule.plan(about, points, "state"), 1.0)
    plan = plan.replace_rows([replace(row, key=STATE | row.key) for row in plan.rows])
    of_row = _steps(plan)
    first = [of_row[r] != of_row[r - 1] for r in range(1, len(of_row))]
    steps = tuple(own[k] if new else -1 for k, new in zip(of_row[1:], first, strict=True))
    calls, places = _noise(rule, plan, of_row, visited, draws) if plan.normals else ((), {})
    return Table(plan, steps, calls, places)


def _steps(plan: Plan) -> list[int]:
    """Of every row its step, counted from 0; of the first row -1."""
    made = [-1]
    for before in plan.rows[:-1]:
        made.append(made[-1] + (before.state is not None))
    return made


def _noise(
    rule: Solver, plan: Plan, of_row: Sequence[int], visited: Sequence[float], draws: Draws
) -> tuple[tuple[tuple[float, float], ...], dict[tuple[int, int], int]]:
    """What is drawn in which order, and which of it each row's normals are. Not all that k-diffusion draws is
    used: of a step that stays on its level, or has no churn, it is multiplied by 0."""
    churned = isinstance(rule, Churned)
    calls: list[tuple[float, float]] = []
    begins = []
    for s, t in pairwise(visited):
        begins.append(len(calls))
        if churned or t > 0.0:
            calls += draws(rule, s, t)
    used: dict[int, int] = {}
    places = {}
    for r, row in enumerate(plan.rows):
        for m in range(plan.normals):
            if row.draws(m):
                step = of_row[r] + churned  # whose noise is put in by the row before its first
                places[r, m] = begins[step] + used.get(step, 0)
                used[step] = used.get(step, 0) + 1
    return tuple(calls), places


def _outside(x: Tensor, sigma: Tensor) -> Tensor:
    raise RuntimeError("the loop calls the model itself")


@lru_cache(maxsize=SHAPES)
def _network(shape: tuple[int, ...], **how: Any) -> ScoreNetwork:
    return ScoreNetwork.from_denoiser(_outside, shape, PROCESS, **how)


def network_of(shape: tuple[int, ...], **how: Any) -> ScoreNetwork:
    """What stands for any denoiser of this shape where a batch is made: the same object for the same."""
    return _network(shape, **how)
