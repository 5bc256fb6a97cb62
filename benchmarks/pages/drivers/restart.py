"""Distance from the data's law against network calls: an ODE, an SDE and restart, of two networks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.drivers.restart import Restart
from diffusion_engine.processes import EDM
from diffusion_engine.testing import Mixture

from ..samplers import plotter

ELEMENTS = 1 << 14  # of a law
STEPS = (6, 9, 12, 18, 27, 40, 60)
AGAIN = Restart([(0.1, 0.6, 4, 4)])
WRONG, ABOVE = 0.25, 0.6  # the error of a network, and the sigma above which it has it
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "ODE: heun": ("heun", {}),
    "SDE: heun with s_churn=40": ("heun", {"s_churn": 40.0, "s_tmax": 50.0, "s_tmin": 0.05}),
    "heun with restart": ("heun", {"driver": AGAIN}),
}


class Mistaken(nn.Module):
    """A denoiser that takes the data for shifted ones at high noise."""

    def __init__(self, exact: Any) -> None:
        super().__init__()
        self.exact = exact

    def forward(self, x: Tensor, angle: Tensor) -> Tensor:
        wrong = (angle.tan() > ABOVE)[:, None] * WRONG
        return self.exact(x - angle.cos()[:, None].to(x.dtype) * wrong, angle) + wrong


@cache
def quantiles() -> np.ndarray:
    """Those of the mixture at the middle of ELEMENTS equal shares."""
    data, x = Mixture(), torch.linspace(-2.5, 2.5, 1 << 17, dtype=torch.float64)
    parts = zip(data.weights, data.means, data.stds, strict=True)
    below = sum(w * torch.special.ndtr((x - m) / s) for w, m, s in parts)
    return np.interp((np.arange(ELEMENTS) + 0.5) / ELEMENTS, below.numpy(), x.numpy())


def curve(network: ScoreNetwork, solver: str, how: dict[str, Any]) -> tuple[list[int], list[float]]:
    """Calls, and the Wasserstein distance from the mixture."""
    calls, distances = [], []
    for steps in STEPS:
        sampler = Sampler(network, solver, steps, grid="karras", dtype=torch.float64, **how)
        result = sampler.sample(1, progress=False)
        calls.append(result.nfe)
        distances.append(float(np.abs(np.sort(result.samples.numpy()[0]) - quantiles()).mean()))
    return calls, distances


def draw(path: Path) -> None:
    pyplot = plotter()
    exact = Mixture().network(EDM(), (ELEMENTS,))
    networks = {
        "a perfect network": exact,
        f"a network that errs above sigma / alpha = {ABOVE}": exact.with_module(
            Mistaken(exact.module)
        ),
    }
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True, sharey=True)
    for panel, (title, network) in zip(panels, networks.items(), strict=True):
        for mark, (name, (solver, how)) in zip("os^", WAYS.items(), strict=True):
            panel.loglog(*curve(network, solver, how), f"{mark}-", label=name, ms=4, lw=1.4)
        ticks = (10, 20, 40, 80, 160)
        panel.set_xticks(ticks, [str(n) for n in ticks])
        panel.minorticks_off()
        panel.grid(True, which="both", alpha=0.25)
        panel.set_xlabel("network calls")
        panel.set_title(title, fontsize=10)
    panels[0].set_ylabel("Wasserstein distance from the mixture")
    panels[1].legend(fontsize=9)
    figure.savefig(path, dpi=85)
