"""Solvers whose coefficients are learned: non-stationary linear ones, from a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan.linear import denoised, slot
from ..processes import GaussianProcess, Point
from ..processes.grids import Grid
from .base import Points, Solver, Update


@dataclass(frozen=True)
class Learned(Solver):
    """x_i = a_i x_0 + sum_{j < i} b_ij D_j, every number from a table: BNS (Shaul et al. 2024), EPD, whose K
    parallel calls of a step follow one another, multistep solvers with weights of their own, or what
    `diffusion-engine tune` learns for a network.

    table  a learned.Table, what its JSON holds, the pathlib.Path of its file, or the name of one that ships

    Its levels are the table's, whatever the steps; a run starts at the first.
    """

    name: ClassVar[str] = "learned"
    source: ClassVar[str] = "Shaul et al. 2024 (BNS), eq. 12; Zhu et al. 2025 (EPD)"
    needs: ClassVar[tuple[str, ...]] = ("table",)
    order = 0
    table: Any = None

    def __post_init__(self) -> None:
        if self.table is not None:
            from ..learned.files import table  # here, as pydantic is loaded with the first table

            object.__setattr__(self, "table", table(self.table))

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return self.table is None or self.table.exact

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        process = parameterisation.process
        if self.table is None:
            return (
                "it has no coefficients; give a table, as learned.read(path) in Python and --option "
                "table=FILE.json on the command line, which `diffusion-engine tune` writes"
            )
        if said := _unsuited(self.table, process):
            return said
        try:
            own = run(self.table, process).milestones
        except ValueError as error:
            return str(error)
        if len(points) != len(own) or not all(map(_same, points, own)):
            return (
                f"its table was learned for the {len(own)} levels that it has, from t={own[0].t:g} to "
                f"t={own[-1].t:g}, and for the way down alone: leave out steps, grid, times, end and start, "
                "and encode with another solver"
            )
        return None

    def default_grid(self, process: GaussianProcess) -> Grid | None:
        return None if self.table is None or _unsuited(self.table, process) else self._levels

    def _levels(self, process: GaussianProcess, steps: int) -> Points:
        return run(self.table, process).milestones

    _levels.complete = True  # type: ignore[attr-defined]

    def updates(self, process: GaussianProcess, points: Points) -> Iterable[Update]:
        return run(self.table, process).updates


@dataclass(frozen=True)
class Run:
    """The rows of a table on a process, and the points between which they go."""

    milestones: tuple[Point, ...]
    updates: tuple[Update, ...]


@lru_cache(maxsize=64)
def run(table: Any, process: GaussianProcess) -> Run:
    """That of a learned.Table. Raises ValueError where the table makes none, or has not enough slots."""
    from ..learned.memory import change, kept
    from ..learned.weights import weights

    made = weights(table, process)
    held, rows = kept(made.states, made.scale), []
    for i in range(made.calls):
        new = {
            k: sum((w * slot(old) for old, w in olds.items()), weight * denoised)
            for k, (olds, weight) in change(held[i], held[i + 1], i, made.scale).items()
        }
        rows.append(Update(made.points[i], new, made.points[i + 1] if i + 1 in made.ends else None))
    return Run(made.milestones, tuple(rows))


def _unsuited(table: Any, process: GaussianProcess) -> str | None:
    """Why a table is not for this process, as a sentence; None where it is."""
    from ..learned.weights import objection

    return objection(table, process)


def _same(a: Point, b: Point) -> bool:
    return abs(a.alpha - b.alpha) <= 1e-9 and abs(a.sigma - b.sigma) <= 1e-9 * max(1.0, b.sigma)
