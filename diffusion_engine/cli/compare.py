"""The command `compare`."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..models import network_of
from .conditions import Prompt, condition_of
from .options import (
    Accelerate,
    Backend,
    BatchSize,
    Classes,
    Compile,
    Device,
    Dtype,
    End,
    Executor,
    Forecast,
    Grid,
    Guidance,
    Guider,
    GuiderOption,
    Json,
    Model,
    Threads,
    device_of,
    guidance_of,
    how_of,
    numbers,
    solver_of,
    spec_of,
)

if TYPE_CHECKING:
    from ..compare.runs import Comparison
    from ..networks.network import ScoreNetwork
    from ..solvers import Solver

SAMPLES = 16  # of a comparison's pictures
COMPARED = {1: "ddim,dpmpp_2m,unipc,heun", 2: "cld_ode,cld_exp"}  # by the parts of the process


def compare(
    context: typer.Context,
    solvers: Annotated[
        str | None,
        typer.Option(
            help="names, each with its options: euler,dpmpp_2m:variant=heun,dpmpp_3m:start=heun; some that "
            "the model takes"
        ),
    ] = None,
    counts: Annotated[
        str,
        typer.Option(
            "--steps", help="5,10,20; of a range 5-50 eight, evenly spaced on a log scale"
        ),
    ] = "5-50",
    by: Annotated[
        str, typer.Option(help="what --steps counts: steps, or calls of the network")
    ] = "steps",
    out: Annotated[
        Path | None, typer.Option(help="picture to write, .png: a row a solver, a column a count")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", help="file to write the points to, distances by seed")
    ] = None,
    model: Model = "digits",
    n: Annotated[
        int | None, typer.Option("--n", help="samples of each run; 4 without --seeds")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="one seed a sample: 0-3 or 1,5,9")] = None,
    classes: Classes = "all",
    prompt: Prompt = None,
    guidance: Guidance = None,
    guider: Guider = None,
    guider_option: GuiderOption = None,
    forecast: Forecast = None,
    grid: Grid = None,
    end: End = None,
    fine_steps: Annotated[
        int | None, typer.Option(help="of the fine solution that runs are held against; 500")
    ] = None,
    batch_size: BatchSize = 64,
    backend: Backend = "auto",
    device: Device = None,
    dtype: Dtype = None,
    accelerate: Accelerate = False,
    executor: Executor = "eager",
    threads: Threads = None,
    compile: Compile = False,
    as_json: Json = False,
) -> None:
    """Makes the same seeds by several solvers: calls, times and distances from the ODE's fine solution."""
    from ..compare.runs import prepared
    from . import files

    if out is not None and files.ending(out) != ".png":
        raise ValueError(
            f"{out.name}: choose a name ending in .png for the picture, and --csv for points"
        )
    for path in filter(None, (out, table)):
        files.check_folder(path)
    rules, columns = None if solvers is None else rules_of(solvers), counts_of(counts)
    wanted = list(range(4 if n is None else n)) if seeds is None else numbers(seeds)
    if seeds is not None and n is not None and n != len(wanted):
        raise ValueError(f"--n {n} and {len(wanted)} seeds: leave one of them out")
    place = device_of(device)
    network = network_of(model, None if rules is None else next(iter(rules.values())), place)
    if rules is None:
        rules = rules_of(COMPARED[network.process.parts])
    first = next(iter(rules.values()))
    condition = condition_of(network, classes, len(wanted), prompt)
    if out is not None:
        _check_picture(network, len(wanted), len(rules), len(columns))
    scale = guidance_of(network, guidance, condition is not None)
    spec = spec_of(context, network, first, guidance=scale, steps=columns[0])
    arguments = {name: v for name, v in spec.arguments().items() if name != "steps"}
    how = how_of(context, place)
    arguments = {name: v for name, v in arguments.items() if name not in how}
    ready = prepared(
        network, rules, columns, by, fine_steps=fine_steps, arguments=arguments, how=how
    )
    made = ready.run(wanted, condition)
    title = (
        f"{network.name}, guidance {scale:g}, " if condition is not None else f"{network.name}, "
    )
    contents = {}
    if out is not None:
        contents[out] = _png(made, title + f"seeds {_said(wanted)}")
    if table is not None:
        contents[table] = _csv(made).encode()
    for path, content in contents.items():
        files.atomically(path, content)
    _print(made, as_json)


def rules_of(text: str) -> dict[str, Solver]:
    """The solvers of "euler,dpmpp_2m:variant=heun", by what they are written as."""
    made: dict[str, Any] = {}
    for part in re.split(r",(?![^\[]*\])", text):
        name, *options = part.strip().split(":")
        if options and "=" not in options[0]:  # package.module:name of one's own
            name = f"{name}:{options.pop(0)}"
        if not name:
            raise ValueError(f"--solvers {text!r}: write names with commas between them")
        label = ":".join([name.rpartition(":")[2], *options])
        if label in made:
            raise ValueError(f"--solvers names {label} twice; leave one out")
        made[label] = solver_of(name, options)
    return made


def counts_of(text: str) -> tuple[int, ...]:
    """The counts of "5,10,20", or of a range "5-50"."""
    from ..compare.runs import thinned

    found = numbers(text)
    if min(found) < 1:
        raise ValueError(f"--steps {text}: counts are 1 or more")
    if re.fullmatch(r"\s*\d+\s*-\s*\d+\s*", text):
        return thinned(found[0], found[-1])
    return tuple(dict.fromkeys(found))


def _check_picture(network: ScoreNetwork, count: int, rows: int, columns: int) -> None:
    from ..compare.picture import Sheet
    from . import files
    from .given import image_shape

    shape = image_shape(network)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            f"--out shows images, and a sample of {network.name!r} has the shape {list(shape)}; "
            "leave it out, and give --csv for the points"
        )
    files.check_picture(shape)
    if count > SAMPLES:
        raise ValueError(
            f"{count} samples a cell: a picture has {SAMPLES} at most; leave --out out, or ask for fewer"
        )
    Sheet(shape, count).check(rows, columns)


def _said(seeds: list[int]) -> str:
    whole = seeds == list(range(seeds[0], seeds[0] + len(seeds))) and len(seeds) > 1
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _png(made: Comparison, title: str) -> bytes:
    from ..compare.picture import picture

    content = io.BytesIO()
    picture(made, title).save(content, "PNG")
    return content.getvalue()


HEAD = ("solver", "steps", "calls", "evaluations", "seconds", "rms", "why_none")


def _rows(made: Comparison) -> list[dict[str, Any]]:
    rows = []
    for name, cells in zip(made.names, made.cells, strict=True):
        for cell in filter(None, cells):
            seconds = round(cell.seconds, 4)
            values = (
                name, cell.steps, cell.calls, cell.evaluations, seconds, cell.distance, cell.why
            )  # fmt: skip
            each = [None] * len(made.seeds) if cell.distances is None else cell.distances.tolist()
            by_seed = {f"seed_{s}": d for s, d in zip(made.seeds, each, strict=True)}
            rows.append(dict(zip(HEAD, values, strict=True)) | by_seed)
    return rows


def _csv(made: Comparison) -> str:
    """The points, a line a run."""
    text, rows = io.StringIO(), _rows(made)
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _print(made: Comparison, as_json: bool) -> None:
    rows = _rows(made)
    if as_json:
        typer.echo(json.dumps({"fine": str(made.fine), "runs": rows}))
        return
    typer.echo(f"rms from the fine solution, {made.fine}, over {len(made.seeds)} samples")
    width = max(len(row["solver"]) for row in rows)
    for row in rows:
        away = row["why_none"] if row["rms"] is None else f"{row['rms']:.4g}"
        typer.echo(
            f"{row['solver']:<{width}}  {row['steps']:>4} steps  {row['calls']:>4} calls  "
            f"{row['seconds']:>8.3f} s  {away}"
        )
