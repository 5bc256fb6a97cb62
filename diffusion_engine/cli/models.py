"""The command `models`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .options import Json

HEAD = ("name", "family", "parameters", "kB", "a run by default", "calls", "Frechet")
CHOSEN = ("start", "teacher", "augmentation", "clip")  # of a recipe, where null is a choice


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            help="print the card of one: a shipped network, or a .safetensors file with its .json"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Lists the networks that ship, or prints the card of one. Nothing is loaded or fetched."""
    from ..zoo import cards

    chosen = [cards.described(one) for one in (cards.names() if name is None else [name])]
    if as_json:
        typer.echo(json.dumps(chosen if name is None else chosen[0], indent=1))
    elif name is None:
        typer.echo("\n".join(table([row(one) for one in chosen])))
    else:
        typer.echo("\n".join(lines(chosen[0])))


def row(about: dict[str, Any]) -> tuple[str, ...]:
    """What the list says of a network."""
    found = about["figures"].get("frechet")
    return (
        about["name"],
        about["family"],
        f"{about['parameters']:,}",
        f"{about['bytes'] / 1000:,.0f}",
        run(about["sampler"]),
        str(about["calls"] or "-"),
        "-" if found is None else f"{found:.3g}",
    )


def run(sampler: dict[str, Any] | None) -> str:
    """A Spec in a few words: "sscs, 50 steps, guidance 2"."""
    if sampler is None:
        return "a part"
    kind = sampler.get("solver")
    solver, options = (
        (kind["name"], kind.get("options", {})) if isinstance(kind, dict) else (kind, {})
    )
    said = [str(solver), *(f"{k}={json.dumps(v)}" for k, v in options.items())]
    for key, value in sampler.items():
        if key == "steps":
            said.append(f"{value} step{'s' if value != 1 else ''}")
        elif key != "solver" and (key, value) != ("guidance", 1.0):
            said.append(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}")
    return ", ".join(said)


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of columns, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    right = {"parameters", "kB", "calls", "Frechet"}
    return [
        "  ".join(
            cell.rjust(width) if head in right else cell.ljust(width)
            for head, cell, width in zip(HEAD, line, widths, strict=True)
        ).rstrip()
        for line in (HEAD, *rows)
    ]


def lines(about: dict[str, Any]) -> list[str]:
    """A card as text."""
    made = [f"{about['name']}: {about['about']}".rstrip(), ""]
    made.append(f"weights       {about['parameters']:,} parameters, {about['bytes']:,} bytes")
    if about["sampler"]:
        calls = f": {about['calls']} calls" if about["calls"] else ""
        made.append(f"sampler       {run(about['sampler'])}{calls}")
    hidden = ("name", "about", "sampler", "calls", "parameters", "bytes", "training", "figures")
    for key, value in about.items():
        if key not in hidden and value not in (None, "", [], {}, 0):
            made.append(f"{key:<12}  {_said(value)}")
    for key in ("training", "figures"):
        if about[key]:
            made += [key, *(f"  {k:<12}  {_said(v, k)}" for k, v in about[key].items())]
    return made


def _said(value: Any, key: str = "") -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_said(v)}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(map(_said, value))
    if value is None:
        return "none" if key in CHOSEN else "not recorded"
    return str(value)
