"""How far the end of a run is from that of the run in order, after every round, on the digits' network."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from diffusion_engine import Sampler
from diffusion_engine.drivers.paradigms import ParaDiGMS
from diffusion_engine.drivers.parataa import ParaTAA
from diffusion_engine.zoo import load_network

from ..samplers import plotter

STEPS, SEED, DIGIT = 50, 7, 3
ROUNDS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16)
TOLERANCE = 1e-3
# All of the run in the window, and nothing settled before the end.
WAYS: dict[str, tuple[str, type[ParaDiGMS], dict[str, str]]] = {
    "ParaDiGMS, increments": ("ddim", ParaDiGMS, {"slope": "increments"}),
    "ParaDiGMS, frozen": ("ddim", ParaDiGMS, {"slope": "frozen"}),
    "ParaTAA, frozen": ("ddim", ParaTAA, {"slope": "frozen"}),
    "ParaDiGMS, secant": ("ddim", ParaDiGMS, {}),
    "ParaTAA, secant": ("ddim", ParaTAA, {}),
    "ParaDiGMS, frozen (dpmpp_2m)": ("dpmpp_2m", ParaDiGMS, {"slope": "frozen"}),
    "ParaDiGMS, secant (dpmpp_2m)": ("dpmpp_2m", ParaDiGMS, {}),
}


def draw(path: Path) -> None:
    """Writes the PNG."""
    pyplot, network = plotter(), load_network("digits")
    figure, axes = pyplot.subplots(figsize=(7.2, 4.0), dpi=100)

    def made(solver: str, driver: ParaDiGMS | None = None) -> Tensor:
        sampler = Sampler(network, solver, STEPS, driver=driver)
        return sampler.sample(1, seed=SEED, condition=[DIGIT], progress=False).samples

    for name, (solver, kind, options) in WAYS.items():
        plain = made(solver)
        ends = [
            made(solver, kind(tolerance=1e-9, max_rounds=rounds, **options)) for rounds in ROUNDS
        ]
        errors = [(end - plain).square().mean().sqrt().item() for end in ends]
        style = "--" if solver != "ddim" else "-"
        axes.semilogy(ROUNDS, errors, style, marker="o", markersize=3, label=name)
    axes.axhline(TOLERANCE, color="0.6", linewidth=0.8)
    axes.set_xlabel(f"rounds, of a run of {STEPS} steps")
    axes.set_ylabel("distance from the run in order")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    Image.open(path).quantize(32).save(path, optimize=True)
