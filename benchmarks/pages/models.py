"""Writes into the card of each network that ships the calls of its run, and its figures where the committed
rows have that run: python -m benchmarks.pages.models."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_engine import Sampler, zoo
from diffusion_engine.zoo import cards

from .. import results

ROWS = "evaluation.csv"
FIGURES = ("frechet", "precision", "recall", "accuracy")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="networks; all that ship")
    for name in parser.parse_args(words).names or zoo.names():
        if zoo.card(name).samples:
            write(name)


def write(name: str) -> None:
    """The card, with the calls of a run and what was measured of it."""
    about = {key: value for key, value in zoo.config(name).items() if key != "calls"}
    calls = Sampler(zoo.load_network(name)).plan().nfe
    at = list(about).index("sampler") + 1
    made = dict([*list(about.items())[:at], ("calls", calls), *list(about.items())[at:]])
    made["figures"] = about.get("figures", {}) | measured(name, about["sampler"])
    for last in ("dtype", "sha256"):
        made[last] = made.pop(last)
    path = cards.weights(name).with_suffix(".json")
    path.write_text(json.dumps(made, indent=2) + "\n")


def measured(name: str, sampler: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the row of most samples that was made as the card says; none where there is none."""
    path = results.FOLDER / ROWS
    if not path.exists():
        return {}
    kind = sampler["solver"]
    solver = kind["name"] if isinstance(kind, Mapping) else kind
    asked = (
        name,
        solver,
        sampler.get("grid") or "",
        sampler["steps"],
        sampler.get("guidance", 1.0),
    )
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if _asked(row) == asked]
    if not rows:
        return {}
    best = max(rows, key=lambda row: int(row["n"]))
    found: dict[str, Any] = {}
    for key in FIGURES:
        found[key] = float(best[key])
        found[f"{key}_spread"] = float(best[f"{key}_spread"])
    return found | {"of_samples": int(best["n"])}


def _asked(row: Mapping[str, str]) -> tuple[Any, ...]:
    solver, _, _ = row["solver"].partition(":")
    return row["model"], solver, row["grid"], int(row["steps"] or 0), float(row["guidance"] or 1.0)


if __name__ == "__main__":
    main()
