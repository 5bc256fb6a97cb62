"""Steps that samples of the digits take, and the error against the calls for a range of tolerances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_engine import Sampler, zoo
from diffusion_engine.networks.network import ScoreNetwork

from ..samplers import plotter

N, SEED, GUIDANCE = 8, 3, 2.0
TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
STEPS = (8, 12, 20, 30, 50)
FINE = 400
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "adaptive, rk23": ("adaptive", {"pair": "rk23"}),
    "adaptive, rk45": ("adaptive", {"pair": "rk45"}),
    "dpm_adaptive, order=2": ("dpm_adaptive", {"order": 2}),
    "dpm_adaptive, order=3": ("dpm_adaptive", {"order": 3}),
}
SCALES = (1.0, 2.0, 4.0, 8.0)
KINDS = ("adaptive", "dpm_adaptive")


def samples(network: ScoreNetwork, **how: Any) -> tuple[Tensor, float]:
    """The digits 0 to 7, and the calls of one on average."""
    sampler = Sampler(network, guidance=GUIDANCE, **how)
    result = sampler.sample(N, condition=list(range(N)), seed=SEED, progress=False)
    return result.samples, result.evaluations / (2 * N)


def errors(panel: Any, network: ScoreNetwork) -> None:
    fine, _ = samples(network, solver="unipc", steps=FINE)

    def curve(runs: list[dict[str, Any]], mark: str, name: str) -> None:
        made = [samples(network, **run) for run in runs]
        rms = [float((x - fine).square().mean().sqrt()) for x, _ in made]
        panel.loglog([calls for _, calls in made], rms, mark, label=name, ms=4, lw=1.4)

    curve([{"solver": "dpmpp_2m", "steps": n} for n in STEPS], "k.--", "a table: dpmpp_2m")
    for mark, (name, (driver, own)) in zip("os^v", WAYS.items(), strict=True):
        tried = [{"rtol": tol, "atol": tol, **own} for tol in TOLERANCES]
        runs = [{"driver": {"name": driver, "options": options}} for options in tried]
        curve(runs, f"{mark}-", name)
    ticks = (10, 20, 40, 80)
    panel.set_xticks(ticks, [str(n) for n in ticks])
    panel.minorticks_off()
    panel.set_xlabel("calls of a sample, on average")
    panel.set_ylabel("RMS distance from a fine run")
    panel.set_title("tolerances from 0.1 to 0.001", fontsize=10)
    panel.legend(fontsize=8)


def steps(panel: Any, network: ScoreNetwork) -> None:
    process, count = network.process, 2 * len(SCALES)
    names = []
    for k, driver in enumerate(KINDS):
        sampler = Sampler(network, driver=driver)
        result = sampler.sample(
            count, condition=[3, 8] * len(SCALES), seeds=[SEED] * count, progress=False,
            guidance=[scale for scale in SCALES for _ in range(2)],
        )  # fmt: skip
        for i, report in enumerate(result.reports or []):
            times = [t for t in report["times"] if t >= process.t_min]
            lam = [process.at(t).lam for t in times]
            panel.plot(lam, [k * count + i] * len(lam), f"C{k}o-", ms=3.5, lw=0.8)
            names.append(f"{[3, 8][i % 2]}, w = {SCALES[i // 2]:g}: {report['calls']}")
        panel.plot([], [], f"C{k}o-", ms=3.5, label=driver)
    panel.set_yticks(range(len(names)), names, fontsize=7)
    panel.set_ylim(len(names) - 0.5, -2.5)
    panel.set_xlabel("lam = log(alpha / sigma)")
    panel.set_title("steps of digits 3 and 8, guidance w: calls", fontsize=10)
    panel.legend(fontsize=8, loc="upper center", ncols=2)


def draw(path: Path) -> None:
    pyplot = plotter()
    network = zoo.load_network("digits")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.4), constrained_layout=True)
    errors(left, network)
    steps(right, network)
    for panel in (left, right):
        panel.grid(True, alpha=0.25)
    figure.savefig(path, dpi=76)
