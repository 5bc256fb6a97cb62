"""Jumps of networks that have learned whole steps: MeanFlow, shortcut models, flow maps, CTM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan.linear import normal
from ..processes import GaussianProcess
from .base import Points, Solver, Update, steps
from .ddim import landing, toward


@dataclass(frozen=True)
class FlowMap(Solver):
    """x_t = sigma_t / sigma_s x_s + (alpha_t - alpha_s sigma_t / sigma_s) D(x_s, s, t), D being `denoised`.

    The network is told both ends of a step, so that one jump is the whole ODE between them: of flow matching
    x_t = x_s - (s - t) u(x_s, s, t), MeanFlow's; of EDM CTM's G = t / s x_s + (1 - t / s) g(x_s, s, t).

    gamma  the jump ends at sigma sqrt(1 - gamma^2), and noise leads up from there: 0 draws none, 1 all of it,
           as consistency models do (Kim et al. 2024, algorithm 3)
    """

    name: ClassVar[str] = "flow_map"
    source: ClassVar[str] = "Geng et al. 2025 (MeanFlow), eq. 12; Kim et al. 2024 (CTM), eq. 9"
    order = 0  # the network has learned a step's whole function, which no number of steps refines
    on_path: ClassVar[bool] = False
    gamma: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma={self.gamma:g}: CTM's gamma lies between 0 and 1")

    @property
    def stochastic(self) -> bool:
        return self.gamma > 0.0

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        if parameterisation.end_label is None:
            return (
                "it makes a step by what a network says of both its ends, and this one is told one time; say "
                "ScoreNetwork(end_label=...) where it is told the end, or use 'ddim'"
            )
        return None

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            noise = 0.0 if t is points[-1] else self.gamma * t.sigma
            new = toward(s, t, noise)[0] + noise * normal(0)
            yield Update(s, {0: new}, t, until=landing(process, t, noise))
