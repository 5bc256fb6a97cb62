"""The command `profile`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

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
    Grid,
    Guidance,
    Json,
    Model,
    Noise,
    Option,
    SolverName,
    Steps,
    Threads,
    chosen,
    device_of,
    guidance_of,
    how_of,
    spec_of,
)


def profile(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="file to write, JSON")] = Path("perf.json"),
    model: Model = "digits",
    solver: SolverName = None,
    steps: Steps = None,
    n: Annotated[int, typer.Option("--n", help="how many samples a run")] = 16,
    classes: Classes = "all",
    prompt: Prompt = None,
    guidance: Guidance = None,
    grid: Grid = None,
    end: End = None,
    option: Option = None,
    batch_size: BatchSize = 64,
    backend: Backend = "auto",
    device: Device = None,
    dtype: Dtype = None,
    accelerate: Accelerate = False,
    executor: Executor = "eager",
    threads: Threads = None,
    compile: Compile = False,
    noise: Noise = None,
    runs: Annotated[int, typer.Option(help="runs timed by the clock")] = 5,
    as_json: Json = False,
) -> None:
    """Shows where a sampler's time goes, and writes it to a file."""
    # Read when torch is first imported. Its profiler writes lines of its own on stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    from .. import profiling
    from ..sampler.sampler import Sampler
    from . import files

    files.check_folder(out)
    place = device_of(device)
    network, rule = chosen(model, place, solver, option)
    condition = condition_of(network, classes, n, prompt)
    scale = guidance_of(network, guidance, condition is not None)
    spec = spec_of(context, network, rule, guidance=scale)
    sampler = Sampler(network, rule, **spec.arguments() | how_of(context, place))
    found = profiling.profile(sampler, n, condition, runs, spec.noise)
    text = found.to_json()
    files.atomically(out, f"{text}\n".encode())
    typer.echo(text if as_json else f"{found}\n\n{out}")
