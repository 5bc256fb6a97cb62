"""The command `tune`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..models import network_of
from .conditions import classes_of
from .options import Classes, Device, Model, device_of

if TYPE_CHECKING:
    from ..tuning import Baseline, Progress


def tune(
    out: Annotated[
        Path, typer.Option(help="file to write, JSON: --option table=FILE of 'learned'")
    ],
    model: Model = "digits",
    calls: Annotated[int, typer.Option(help="of the network a sample")] = 6,
    family: Annotated[
        str, typer.Option(help="bns: every number free, up to 9 calls; multistep; or epd")
    ] = "bns",
    guidance: Annotated[float, typer.Option(help="classifier-free scale, 1 for none")] = 1.0,
    classes: Classes = "all",
    steps: Annotated[int, typer.Option(help="of learning")] = 160,
    batch: Annotated[int, typer.Option(help="samples a step of learning")] = 24,
    samples: Annotated[int, typer.Option(help="that are learned from")] = 256,
    fine_steps: Annotated[int, typer.Option(help="of the solution that is aimed at")] = 100,
    seed: Annotated[int, typer.Option(help="of learning: the same makes the same table")] = 0,
    held: Annotated[
        int, typer.Option(help="seeds 0, 1, ... that nothing is learned from, to compare by, or 0")
    ] = 64,
    report: Annotated[Path | None, typer.Option(help="file for the comparison, CSV")] = None,
    device: Device = None,
) -> None:
    """Learns a solver's coefficients for a network and a number of calls. Ctrl-C writes the best so far."""
    from .. import tuning
    from ..learned.files import said
    from . import files

    for path, ending in ((out, ".json"), (report, ".csv")):
        if path is not None:
            if files.ending(path) != ending:
                raise ValueError(f"{path.name}: choose a name ending in {ending}")
            files.check_folder(path)
    network = network_of(model, None, device_of(device))
    condition = classes_of(network, classes, samples)
    made = tuning.tune(
        network, calls, family, guidance=guidance, condition=condition, steps=steps, batch=batch,
        samples=samples, fine_steps=fine_steps, seed=seed, on_step=_say,
    )  # fmt: skip
    files.atomically(out, said(made.table).encode())
    about = f"after {made.steps} steps, {made.seconds:.0f} s"
    typer.echo(f"{out}: {'stopped ' if made.stopped else ''}{about}", err=True)
    if made.stopped or not held:
        return
    told = classes_of(network, classes, held)
    rows = tuning.compared(
        network, made.table, list(range(held)), told, guidance=guidance, fine_steps=2 * fine_steps
    )
    for row in rows:
        typer.echo(f"{row.solver:10} {row.grid:10} {row.distance:.4f}")
    if report is not None:
        files.atomically(report, _csv(rows, calls, guidance, held).encode())


def _say(progress: Progress) -> None:
    done = f"step {progress.step} of {progress.steps}, {progress.seconds:.0f} s"
    typer.echo(f"{done}: distance {progress.distance:.4f}", err=True)


def _csv(rows: list[Baseline], calls: int, guidance: float, held: int) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("solver", "grid", "calls", "guidance", "seeds", "distance"))
    writer.writerows((r.solver, r.grid, calls, guidance, held, repr(r.distance)) for r in rows)
    return text.getvalue()
