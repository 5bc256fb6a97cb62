"""Writes docs/samplers.md from the solvers themselves: python -m benchmarks.pages.samplers. With --curves its
picture too, which takes minutes, and matplotlib."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from diffusion_engine import SOLVERS, Sampler, ScoreNetwork, testing
from diffusion_engine.learned import table_of
from diffusion_engine.ops.layout import SLOTS
from diffusion_engine.solvers.base import orders

from . import measured
from .curves import draw

DOCS = Path(__file__).parents[2] / "docs"
INTRO = Path(__file__).with_name("samplers_intro.md")
ENCODING = Path(__file__).with_name("samplers_encoding.md")
PAGE, PICTURE = DOCS / "samplers.md", DOCS / "samplers.png"

ELEMENTS = 1 << 12  # of a law
STARTS = 1 << 7  # of trajectories
CALLS = (6, 12, 24, 48)
FEW = (1, 2, 4, 8)  # of students
CHAIN = (4,)  # of the generator that `exact_network` gives
CALLS_OF = {"consistency": FEW, "lcm": FEW, "flow_map": FEW, "tcd": FEW, "scm": FEW, "ddgan": CHAIN}
OPTIONS = {"ald": {"n_steps": 3}}  # of a hundred calls a level
FINE = 300  # steps of a reference run
REFERENCE = {1: ("dpm_solver_3", {}), 2: ("cld_exp", {"max_order": 3})}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--curves", action="store_true", help=f"run every solver and draw {PICTURE.name}"
    )
    curves = parser.parse_args(words).curves
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
    if not curves:
        print(f"{PICTURE.name} is as it was: --curves draws it")
        return
    pyplot = plotter()
    drawn = [name for name, kind in SOLVERS.items() if not kind.needs]
    draw(pyplot, {name: curve(name) for name in drawn}, of_exact_samples(), PICTURE)
    print(f"wrote {PICTURE}")


def page() -> str:
    """The text of docs/samplers.md."""
    families: dict[str, list[str]] = {}
    for name, kind in SOLVERS.items():
        families.setdefault(inspect.getmodule(kind).__doc__.splitlines()[0], []).append(name)
    parts = [INTRO.read_text().rstrip()]
    for title, names in families.items():
        parts.append(f"## {title.rstrip('.')}")
        parts.append(table(names))
        parts.append("\n".join(f"- `{n}`: {step(n)}" for n in names))
        differs = [f"- `{n}`: {SOLVERS[n].differs}." for n in names if SOLVERS[n].differs]
        if differs:
            parts.append("Otherwise than the published code:\n\n" + "\n".join(differs))
    parts += [ENCODING.read_text().rstrip(), measured.block("encoding")]
    return "\n\n".join(parts) + "\n"


def table(names: list[str]) -> str:
    head = (
        "solver",
        "class",
        "paper",
        "order",
        "options",
        "slots",
        "calls a step",
        "launches a call",
    )
    lines = [head, ("---",) * len(head)]
    for name in names:
        kind = SOLVERS[name]
        made = kind()
        plan = sampler(name, 4).plan()
        slots = f"1 to {SLOTS}" if kind.needs else str(plan.slots)
        lines.append((
            f"`{name}`", kind.__name__, kind.source, orders(made), options(kind), slots,
            str(made.calls), f"{(len(plan.rows) - 1) / plan.nfe:g}",
        ))  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def step(name: str) -> str:
    """The first paragraph of the class's docstring, which says what a step is."""
    return " ".join((inspect.getdoc(SOLVERS[name]) or "").split("\n\n")[0].split())


def options(kind: type) -> str:
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    found = [f"{f.name}={f.default!r}" for f in fields if f.init]
    return ", ".join(f"`{option}`" for option in found)


@cache
def network_of(name: str) -> ScoreNetwork:
    return testing.exact_network("dpmpp_2m" if SOLVERS[name].needs else name)


def sampler(name: str, steps: int, **options: object) -> Sampler:
    if "table" in SOLVERS[name].needs:
        plan = sampler("dpmpp_2m", steps).plan(kind="state")
        options = {"table": table_of(plan, network_of(name).process)}
    return Sampler(network_of(name), name, steps, **options)


def curve(name: str) -> list[tuple[int, float]]:
    """The (network calls, error) of a solver."""
    options, made = OPTIONS.get(name, {}), []
    solver = SOLVERS[name](**options)
    for calls in CALLS_OF.get(name, CALLS):
        steps = calls if name in CALLS_OF else max(2, calls // solver.calls)
        try:
            if solver.stochastic:
                result = sampler(name, steps, batch_size=ELEMENTS, **options).sample(ELEMENTS)
                error = distance(result.samples)
            else:
                one = sampler(name, steps, dtype=torch.float64, batch_size=STARTS, **options)
                result = one.sample(STARTS)
                error = rms(name, result.samples)
        except ValueError:  # more than its options have levels for
            continue
        made.append((result.nfe, error))
    print(name, *(f"{n}: {e:.2e}" for n, e in made), file=sys.stderr, flush=True)
    return made


def rms(name: str, samples: torch.Tensor) -> float:
    return float((samples - exact(network_of(name))).square().mean().sqrt())


@cache
def exact(network: ScoreNetwork) -> torch.Tensor:
    """The end of the network's ODE from the noise of seed 0."""
    solver, how = REFERENCE[network.process.parts]
    plain = network if network.process.parts == 2 else network_of("dpm_solver_3")
    one = Sampler(plain, solver, FINE, dtype=torch.float64, batch_size=STARTS, **how)
    return one.sample(STARTS).samples


def distance(samples: torch.Tensor) -> float:
    """The Wasserstein distance of samples from the mixture."""
    return float((samples.flatten().sort().values - quantiles()).abs().mean())


@cache
def quantiles() -> torch.Tensor:
    """The quantiles of the mixture at the middle of ELEMENTS equal shares."""
    data = testing.Mixture()
    x = torch.linspace(-2.5, 2.5, 1 << 20, dtype=torch.float64)
    below = sum(
        w * torch.special.ndtr((x - m) / s)
        for w, m, s in zip(data.weights, data.means, data.stds, strict=True)
    )
    shares = (np.arange(ELEMENTS) + 0.5) / ELEMENTS
    return torch.from_numpy(np.interp(shares, below.numpy(), x.numpy()))


def of_exact_samples() -> float:
    """The `distance` that exact samples show."""
    data, generator = testing.Mixture(), torch.Generator().manual_seed(0)
    which = torch.multinomial(torch.tensor(data.weights), ELEMENTS, True, generator=generator)
    z = torch.randn(ELEMENTS, generator=generator, dtype=torch.float64)
    means, stds = (torch.tensor(v, dtype=torch.float64) for v in (data.means, data.stds))
    return distance(means[which] + stds[which] * z)


def plotter() -> ModuleType:
    """matplotlib's pyplot, which draws to files; without it an error before the minutes that curves take."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("--curves needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


if __name__ == "__main__":
    main()
