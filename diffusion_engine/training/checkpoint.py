"""A training's state as one safetensors file, from which it goes on to the same bits."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .. import atomic

FORMAT = "diffusion_engine training 1"


def write(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Replaces the checkpoint at `path`; where that fails the one before stays whole.

    Raises OSError, in a sentence.
    """
    whole = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    content = safetensors.torch.save(whole, {"format": FORMAT, "about": json.dumps(about)})
    with writing(f"the checkpoint {path} of {len(content):,} bytes", path):
        atomic.write(path, content)


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Makes of an OSError within a sentence: what could not be written, and whether a training can go on from
    the checkpoint at `path`."""
    try:
        yield
    except OSError as error:
        then = "make room, and train again; no checkpoint was written before"
        if path.exists():
            then = f"the last checkpoint, {path}, is whole. Make room, and train with --resume"
        raise OSError(f"{what} could not be written ({error.strerror or error}); {then}") from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint and what it says. Raises ValueError where it is none, or damaged."""
    if not path.is_file():
        raise ValueError(
            f"there is no checkpoint {path} to resume (it goes when a training ends); train without --resume"
        )
    try:
        with safetensors.safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if notes.get("format") != FORMAT:
            raise ValueError(f"its format is {notes.get('format')!r}, not {FORMAT!r}")
        about = json.loads(notes["about"])
    except Exception as error:  # the Rust reader raises its own types
        raise ValueError(
            f"{path} is no checkpoint of a training ({error}); train without --resume"
        ) from error
    return tensors, about


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose name begins with the prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def put(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copies tensors into a module, whose memory formats stay.

    Raises ValueError where one has another name or shape.
    """
    own = module.state_dict()
    wrong = [k for k in own if k not in tensors or tensors[k].shape != own[k].shape]
    if wrong or len(own) != len(tensors):
        raise ValueError(
            f"{where} does not hold the {len(own)} tensors of {type(module).__name__}, but "
            f"{len(tensors)}: {', '.join((wrong or sorted(tensors.keys() - own.keys()))[:4])} differ; it is "
            "the checkpoint of another architecture"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])


def state_of(optimizer: torch.optim.Optimizer, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The numbers of an optimizer: the prefix, the parameter's index and their name."""
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            yield f"{prefix}{index}.{name}", torch.as_tensor(value)


def put_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts what `state_of` named into a new optimizer, in its parameters' memory formats."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        if value.shape == like.shape:
            value = torch.empty_like(like, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def path_of(out: str | os.PathLike[str], name: str) -> Path:
    """Where the checkpoint of a recipe of that name lies in the folder `out`."""
    return Path(out) / f"{name}.checkpoint.safetensors"
