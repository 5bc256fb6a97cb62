"""The error of log p over network calls: the engine's solvers, and dopri5 at falling tolerances."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from diffusion_engine import likelihood
from diffusion_engine.processes import VP
from diffusion_engine.testing import Mixture

from ..samplers import plotter

SOLVERS = ("ddim", "heun", "dpmpp_2m", "dpm_solver_3", "unipc", "deis")
STEPS = (12, 24, 48, 96, 192)
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def errors() -> dict[str, list[tuple[float, float]]]:
    """Of every solver (calls, mean |error| in bits/dim), on draws of the data."""
    data, drawn = Mixture(), torch.Generator().manual_seed(0)
    which = torch.multinomial(torch.tensor(data.weights), 64, True, generator=drawn)
    noise = torch.randn(64, generator=drawn)
    x = (torch.tensor(data.means)[which] + torch.tensor(data.stds)[which] * noise).view(16, 4)
    network = data.network(VP(), (4,))
    how = {"dtype": torch.float64, "exact": True, "t_min": 1e-3}
    true = likelihood(network, x, rtol=1e-9, atol=1e-9, **how).bits_per_dim

    def point(**more: object) -> tuple[float, float]:
        made = likelihood(network, x, **how, **more)  # type: ignore[arg-type]
        return sum(made.nfe) / len(x), (made.bits_per_dim - true).abs().mean().item()

    found = {"dopri5": [point(rtol=t, atol=t) for t in TOLERANCES]}
    for name in SOLVERS:
        found[name] = [point(solver=name, steps=n) for n in STEPS]
    return found


def draw(path: Path) -> None:
    """Writes the PNG."""
    pyplot = plotter()
    figure, axes = pyplot.subplots(figsize=(7.2, 4.4), dpi=110)
    for name, points in errors().items():
        style = {"color": "black", "linewidth": 2.0} if name == "dopri5" else {}
        axes.loglog(*zip(*points, strict=True), marker="o", markersize=3.5, label=name, **style)
    axes.set_xlabel("network calls a sample")
    axes.set_ylabel("mean error, bits/dim")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    with Image.open(path) as image:
        image.convert("RGB").quantize(64).save(path, optimize=True)
