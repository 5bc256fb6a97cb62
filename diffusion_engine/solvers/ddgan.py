"""Denoising diffusion GANs: a generator draws x0, the chain's posterior draws the next state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan.linear import normal
from ..processes import Discrete, GaussianProcess
from .base import Points, Solver, Update, steps
from .ddim import posterior_std, toward


@dataclass(frozen=True)
class DDGAN(Solver):
    """x_{i-1} = c1 x0 + c2 x_i + std n, x0 = G(x_i, i, z) with a fresh latent z (Xiao et al. 2022).

    c1, c2 and std are those of q(x_{i-1} | x_i, x0) on `Discrete.few(n)`, of which every timestep is a
    step, n = 4 or 2. The network predicts "x0" and has a `latent`; the last step returns its x0.
    """

    name: ClassVar[str] = "ddgan"
    source: ClassVar[str] = "Xiao et al. 2022 (denoising diffusion GANs)"
    order = 0  # its steps are those of the generator's chain
    on_path: ClassVar[bool] = False

    @property
    def stochastic(self) -> bool:
        return True

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            noise = posterior_std(s, t)
            yield Update(s, {0: toward(s, t, noise)[0] + noise * normal(0)}, t)

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        process = parameterisation.process
        if not isinstance(process, Discrete):
            return "its generator knows the steps of one short chain: give Discrete.few(4) as the process"
        every = [*range(len(process.alpha_bar) - 1, -1, -1)]
        if [p.t for p in points[: len(every)]] != every or points[-1] != process.clean:
            return (
                f"its generator knows the {len(every)} steps of its chain: sample with "
                f"steps={len(every)} on the grid 'trailing' to clean data"
            )
        latent, prediction = parameterisation.latent, parameterisation.prediction
        if latent == 0 or prediction != "x0":
            return (
                f"it runs a generator G(x, t, z) of x0: give ScoreNetwork latent=100, its size of z, and "
                f"prediction='x0'; got latent={latent}, {prediction!r}"
            )
        return None
