"""How far DDIM's draws are from their mixture, alone and with correctors, of an exact network and one that
errs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.drivers.predictor_corrector import PredictorCorrector
from diffusion_engine.processes import VE
from diffusion_engine.testing import Mixture

from ..samplers import plotter

COUNT = 1 << 14  # draws, the elements of one sample
CALLS = (10, 20, 40, 80, 160, 320)
SHIFT, ABOVE = 0.25, 0.6  # the error of a network, and the sigma above which it has it
WAYS = {
    "DDIM alone": None,
    "corrected, snr=0.16": PredictorCorrector(),
    "corrected, snr=0.3": PredictorCorrector(snr=0.3),
}


class Erring(nn.Module):
    """A denoiser that takes the data for shifted ones at high noise; it is told arctan sigma."""

    def __init__(self, exact: Any) -> None:
        super().__init__()
        self.exact = exact

    def forward(self, x: Tensor, angle: Tensor) -> Tensor:
        shift = (angle.tan() > ABOVE)[:, None].to(x.dtype) * SHIFT
        return self.exact(x - shift, angle) + shift


def quantiles() -> np.ndarray:
    """Those of the mixture at the middle of COUNT equal shares."""
    data, x = Mixture(), torch.linspace(-2.5, 2.5, 1 << 16, dtype=torch.float64)
    parts = zip(data.weights, data.means, data.stds, strict=True)
    below = sum(w * torch.special.ndtr((x - m) / std) for w, m, std in parts)
    return np.interp((np.arange(COUNT) + 0.5) / COUNT, torch.as_tensor(below).numpy(), x.numpy())


def distance(network: ScoreNetwork, calls: int, driver: PredictorCorrector | None) -> float:
    """Wasserstein distance of so many calls' draws from the mixture."""
    steps = calls if driver is None else calls // (1 + driver.steps)
    made = Sampler(network, "ddim", steps, driver=driver).sample(1, progress=False)
    return float(np.abs(np.sort(made.samples.double().numpy()[0]) - quantiles()).mean())


def draw(path: Path) -> None:
    """Writes the PNG."""
    pyplot, exact = plotter(), Mixture().network(VE(), (COUNT,))
    networks = {
        "an exact network": exact,
        f"a network that errs above sigma = {ABOVE:g}": exact.with_module(Erring(exact.module)),
    }
    figure, panels = pyplot.subplots(1, 2, figsize=(8.4, 3.6), dpi=100, sharey=True)
    for axes, (title, network) in zip(panels, networks.items(), strict=True):
        for name, driver in WAYS.items():
            found = [distance(network, calls, driver) for calls in CALLS]
            axes.loglog(CALLS, found, marker="o", markersize=3.5, label=name)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("network calls")
        axes.grid(True, which="major", alpha=0.3)
    panels[0].set_ylabel("distance from the data's law")
    panels[0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
