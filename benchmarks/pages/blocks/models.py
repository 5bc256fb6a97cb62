"""What docs/models.md says of the networks that ship, from their cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusion_engine.cli.models import run
from diffusion_engine.zoo import cards

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "docs" / "models"
Z = 1.96  # standard deviations that 95 % of a normal law lie within


def models() -> str:
    """The table."""
    head = (
        "network", "family", "parameters", "kB", "a run by default", "calls", "Frechet distance", "trained"
    )  # fmt: skip
    lines = [head, ("---", "---", "--:", "--:", "---", "--:", "--:", "--:")]
    for name in cards.names():
        about = cards.described(name)
        lines.append((
            f"`{name}`", about["family"], f"{about['parameters']:,}", f"{about['bytes'] / 1000:,.0f}",
            _run(about), str(about["calls"] or "-"), _distance(about["figures"]), _minutes(about["training"]),
        ))  # fmt: skip
    total = sum(cards.weights(name).stat().st_size for name in cards.names())
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    said = "Distances of samples by that run, with their 95 %: [quality](quality.md)."
    return f"{table}\n\n{said} All weights together are {total / 1e6:.1f} MB."


def models_pictures() -> str:
    """A section of each network: what it is, how it was trained, and the samples of its seeds 0 to 49."""
    return "\n\n".join(_section(name, cards.described(name)) for name in cards.names())


def _section(name: str, about: dict[str, Any]) -> str:
    parts = [f"### {name}", about["about"]]
    if (PICTURES / f"{name}.png").is_file():
        made = f"Fifty digits of `{name}`, five of each class: {_run(about)}"
        parts.append(f'<img src="models/{name}.png" width="684" alt="{made}">')
    return "\n\n".join(parts)


def _run(about: dict[str, Any]) -> str:
    return run(about["sampler"]) if about["sampler"] else "a part of others"


def _distance(figures: dict[str, Any]) -> str:
    if (found := figures.get("frechet")) is None:
        return "-"
    return f"{found:.1f} ± {Z * figures['frechet_spread']:.1f}"


def _minutes(training: dict[str, Any]) -> str:
    seconds = training.get("seconds")
    return "not recorded" if seconds is None else f"{seconds / 60:.0f} min"
