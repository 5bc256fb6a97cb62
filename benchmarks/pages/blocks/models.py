"""What docs/models.md says of the networks that ship, from their cards."""

from __future__ import annotations

from typing import Any

from diffusion_engine.cli.models import run
from diffusion_engine.zoo import cards

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


def _run(about: dict[str, Any]) -> str:
    return run(about["sampler"]) if about["sampler"] else "a part of others"


def _distance(figures: dict[str, Any]) -> str:
    if (found := figures.get("frechet")) is None:
        return "-"
    return f"{found:.1f} ± {Z * figures['frechet_spread']:.1f}"


def _minutes(training: dict[str, Any]) -> str:
    seconds = training.get("seconds")
    return "not recorded" if seconds is None else f"{seconds / 60:.0f} min"
