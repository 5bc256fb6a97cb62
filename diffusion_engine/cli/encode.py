"""The command `encode`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .conditions import Prompt, condition_of
from .options import (
    Backend,
    Classes,
    Device,
    Dtype,
    Grid,
    Guidance,
    Json,
    Model,
    Option,
    Refine,
    SolverName,
    Steps,
    chosen,
    device_of,
    how_of,
    spec_of,
)


def encode(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="an image, or samples as .npz or .safetensors")],
    out: Annotated[Path, typer.Option(help="file of latents to write: .npz or .safetensors")],
    model: Model = "digits",
    solver: SolverName = None,
    steps: Steps = 50,
    encoding: Refine = 0,
    classes: Classes = "none",
    prompt: Prompt = None,
    guidance: Guidance = 1.0,
    grid: Grid = None,
    option: Option = None,
    backend: Backend = "auto",
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Runs the solver's ODE upwards: from images to the latents that lead back to them."""
    from ..sampler.sampler import Sampler
    from . import files
    from .given import read_state

    if files.ending(out) == ".png":
        raise ValueError(f"{out.name}: latents are no image; choose .npz or .safetensors")
    files.check_path(out)
    place = device_of(device)
    network, rule = chosen(model, place, solver, option, encodes=True)
    images = read_state(source, network)
    condition = condition_of(network, classes, len(images), prompt)
    spec = spec_of(context, network, rule)
    sampler = Sampler(network, rule, **spec.arguments() | how_of(context, place))
    result = sampler.encode(images, refine=encoding, condition=condition)
    if not all(result.finite):
        raise ValueError("the latents are not finite; nothing was written")
    files.write(out, result)
    if as_json:
        about = {"out": str(out), "n": len(images), "nfe": result.nfe, "recipe": result.recipe}
        typer.echo(json.dumps(about))
    else:
        typer.echo(f"{out}: {len(images)} latents, {result.nfe} calls each")
