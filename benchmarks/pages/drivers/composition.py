"""The product of two densities in the plane: the true one, and points of samplers at equal calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_engine import Sampler
from diffusion_engine.drivers.annealed_mcmc import AnnealedMCMC
from diffusion_engine.testing.plane import plane_mixtures, ring

from ..samplers import plotter

POINTS, BINS, EDGE = 1000, 24, 3.0
CALLS = 120
PRODUCT = [(0, 1.0), (1, 1.0)]
RINGS = ring((-0.8, 0.0)), ring((0.8, 0.0))
# Name, steps of DDPM and the chain behind each.
WAYS: list[tuple[str, int, Any]] = [
    ("plain", CALLS, None),
    ("ULA", 20, AnnealedMCMC("ula", steps=5, step=0.3, unit="sigma")),
    ("HMC", 15, AnnealedMCMC("hmc", steps=2, leapfrogs=3, step=0.5)),
]


def truth(bins: int) -> Tensor:
    """The product's probability of each bin [bins, bins], by its middle."""
    middle = (torch.arange(bins, dtype=torch.float64) + 0.5) * (2.0 * EDGE / bins) - EDGE
    grid = torch.cartesian_prod(middle, middle)
    energy = plane_mixtures(*RINGS).module.energy  # type: ignore[attr-defined]
    clean = torch.zeros(len(grid))
    log = -sum(energy(grid, clean, torch.full((len(grid),), y)) for y in (0, 1))
    return log.softmax(0).reshape(bins, bins)


def points(steps: int, chain: AnnealedMCMC | None) -> tuple[Tensor, Any]:
    """Points [POINTS, 2] of the product, one a sample, and the result."""
    sampler = Sampler(plane_mixtures(*RINGS), "ddpm", steps, driver=chain)
    result = sampler.sample(POINTS, compose=PRODUCT, progress=False)
    assert result.nfe <= CALLS, f"{result.nfe} calls"
    return result.samples.double(), result


def total_variation(found: Tensor) -> float:
    """Half the sum of the differences from the true probability of BINS x BINS bins."""
    fine = 8
    true = truth(BINS * fine).reshape(BINS, fine, BINS, fine).sum((1, 3))
    box = [-EDGE, EDGE, -EDGE, EDGE]
    counts = torch.histogramdd(found, bins=BINS, range=box).hist / len(found)
    return 0.5 * float((counts - true).abs().sum() + 1.0 - counts.sum())


def draw(path: Path) -> None:
    pyplot = plotter()
    figure, panels = pyplot.subplots(1, 4, figsize=(12, 3.5), constrained_layout=True)
    panels[0].set_title("the true product", fontsize=10)
    for panel in panels:
        panel.contourf(
            truth(120).T, levels=12, cmap="Blues", extent=(-EDGE, EDGE, -EDGE, EDGE),
            alpha=1.0 if panel is panels[0] else 0.35,
        )  # fmt: skip
        panel.set_aspect("equal")
        panel.set_xticks([])
        panel.set_yticks([])
    for panel, (name, steps, chain) in zip(panels[1:], WAYS, strict=True):
        found, result = points(steps, chain)
        panel.plot(*found.T, ".", ms=2, color="#b03a2e")
        panel.set_xlim(-EDGE, EDGE)
        panel.set_ylim(-EDGE, EDGE)
        title = f"{name}: {result.nfe} calls, total variation {total_variation(found):.2f}"
        if chain is not None and "acceptance" in result.reports[0]:
            shares = [report["acceptance"] for report in result.reports]
            title += f",\naccepts {sum(shares) / len(shares):.2f}"
        panel.set_title(title, fontsize=9)
    figure.savefig(path, dpi=80)
