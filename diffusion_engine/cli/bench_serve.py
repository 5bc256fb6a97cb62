"""The command `bench-serve`."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..models import network_of
from .options import (
    Accelerate,
    Backend,
    Compile,
    Device,
    Dtype,
    Executor,
    Json,
    Model,
    Threads,
    device_of,
    how_of,
)

if TYPE_CHECKING:
    from ..profiling.serve import Report

Mix = Annotated[
    Path | None,
    typer.Option(
        help="JSON list of requests, each with spec, and weight, n, guidance, condition, priority, deadline "
        "or preview; a mix of 5 to 50 steps of several solvers if none is given"
    ),
]


def bench_serve(
    context: typer.Context,
    model: Model = "digits",
    rate: Annotated[float, typer.Option(help="requests a second, on average")] = 20.0,
    requests: Annotated[int, typer.Option(help="how many", min=1)] = 200,
    mix: Mix = None,
    seed: Annotated[int, typer.Option(help="of the arrivals and of who asks what")] = 0,
    capacity: Annotated[int, typer.Option(help="samples of a batch")] = 16,
    batch: Annotated[str, typer.Option(help="bucket, or fixed: all calls of one size")] = "bucket",
    backend: Backend = "auto",
    device: Device = None,
    dtype: Dtype = None,
    accelerate: Accelerate = False,
    executor: Executor = "eager",
    threads: Threads = None,
    compile: Compile = False,
    picture: Annotated[Path | None, typer.Option(help="PNG of the seats over time")] = None,
    as_json: Json = False,
) -> None:
    """Puts an engine under a load of requests, beside static batches and one request at a time."""
    from .. import solvers
    from ..profiling.serve import DEFAULT, Bench, mix_of
    from . import files

    if rate <= 0:
        raise ValueError(f"--rate {rate:g}: give requests a second, more than 0")
    if picture is not None:
        files.check_folder(picture)
    kinds = DEFAULT if mix is None else mix_of(mix.read_text())
    first = kinds[0].spec.solver
    place = device_of(device)
    network = network_of(model, solvers.solver(first.name, **first.options), place)
    with Bench(network, kinds, capacity, requests, batch, **how_of(context, place)) as bench:
        bench.warm()
        found = bench.compare(bench.load(requests, rate, seed))
    typer.echo(found.to_json() if as_json else str(found))
    if picture is not None:
        files.atomically(picture, _png(found))


def _png(found: Report) -> bytes:
    from ..profiling.serve.picture import draw

    courses = [
        (line.name, line.course) for line in found.lines if line.course and line.course.seats
    ]
    made = BytesIO()
    draw(courses, found.capacity).quantize(64).save(made, "PNG", optimize=True)
    return made.getvalue()
