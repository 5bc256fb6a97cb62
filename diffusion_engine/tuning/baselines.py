"""Solvers at so many calls, each on the grid on which it comes nearest to the fine solution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..compare import Fine, distance, fine_solution
from ..learned import Table
from ..networks.network import ScoreNetwork
from ..processes import Discrete, GaussianProcess
from ..sampler.sampler import Sampler

SOLVERS = ("dpmpp_2m", "unipc", "deis")
GRIDS = ("uniform", "quadratic", "karras", "lambda")
FINE = 250  # steps of the fine solution
OF_TABLES = ("leading", "trailing", "linspace")


def grids_of(process: GaussianProcess) -> tuple[str, ...]:
    """The grids of all processes, and of tables their own."""
    return (*GRIDS, *(OF_TABLES if isinstance(process, Discrete) else ()))


@dataclass(frozen=True)
class Baseline:
    """A solver on a grid, and the distance of its samples from the fine solution (compare.distance)."""

    solver: str
    grid: str
    distance: float


def baselines(
    network: ScoreNetwork,
    calls: int,
    fine: Tensor,
    seeds: Sequence[int],
    condition: Any = None,
    *,
    solvers: Iterable[str] = SOLVERS,
    grids: Iterable[str] | None = None,
    **how: Any,
) -> list[Baseline]:
    """Of each solver the best of its grids in so many steps to clean data, the best first.

    fine       the fine solution of the seeds, as compare.fine_solution makes it
    condition  as Sampler.sample takes it
    solvers    of one call a step
    grids      None: those that suit the process, and have no option
    how        further arguments of Sampler, as guidance
    """
    grids = grids_of(network.process) if grids is None else grids
    best: dict[str, Baseline] = {}
    for solver in solvers:
        for grid in grids:
            try:
                sampler = Sampler(network, solver, calls, grid=grid, **how)
            except ValueError:  # it does not suit the process or these points
                continue
            result = sampler.sample(seeds=list(seeds), condition=condition, progress=False)
            made = Baseline(solver, grid, distance(result.samples, fine))
            if solver not in best or made.distance < best[solver].distance:
                best[solver] = made
    return sorted(best.values(), key=lambda made: made.distance)


def compared(
    network: ScoreNetwork,
    table: Table,
    seeds: Sequence[int],
    condition: Any = None,
    *,
    fine_steps: int = FINE,
    **how: Any,
) -> list[Baseline]:
    """A learned table, and the solvers of as many calls, each on its best grid for these very seeds.

    seeds       from which nothing was learned
    fine_steps  of the solution that all are held against
    condition, how  as in `baselines`
    """
    fine = fine_solution(network, seeds, condition, fine=Fine.of(network, fine_steps), **how)
    sampler = Sampler(network, "learned", table=table, **how)
    made = sampler.sample(seeds=list(seeds), condition=condition, progress=False)
    own = Baseline("learned", "its own", distance(made.samples, fine))
    return [own, *baselines(network, table.calls, fine, seeds, condition, **how)]
