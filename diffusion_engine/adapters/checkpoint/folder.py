"""A checkpoint in a folder: config.json, which says what it is, and model.safetensors, its numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .safe_file import load, opened
from .strict_json import parsed

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MOST = 1 << 20  # bytes of a config
FORM = (
    f"a checkpoint is a folder of {CONFIG} and {WEIGHTS}, as `diffusion-engine convert` writes it, or a "
    ".safetensors file with a .json file of the same name beside it"
)


@dataclass(frozen=True)
class Checkpoint:
    """config   what config.json holds
    tensors  by name, on the CPU, of the file's dtypes
    name     of the folder, or of the file without its ending
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    name: str


def read(path: str | os.PathLike[str], expected_format: str | None = None) -> Checkpoint:
    """What a folder, or a .safetensors file with its .json, holds. Nothing of it is run.

    expected_format  what the config has to say of its format

    Raises ValueError where a file is absent, is a link out of the folder, is larger than allowed, is damaged
    or lies about itself, or is of another format.
    """
    config_path, weights_path = files(path)
    config = config_of(config_path)
    found = format_of(config)
    if expected_format is not None and found != expected_format:
        raise ValueError(
            f"{config_path} is of the format {found!r}, not {expected_format!r}: open it by "
            "open_checkpoint, which goes by that"
        )
    return Checkpoint(config, load(weights_path), name_of(path))


def name_of(path: str | os.PathLike[str]) -> str:
    """What a checkpoint is called: its folder, or its file without the ending."""
    given = Path(path).absolute()
    return given.resolve().name if given.is_dir() else given.stem


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder, or a .safetensors file whose .json says of which format it is."""
    given = Path(path)
    if given.is_dir():
        return True
    beside = given.with_suffix(".json")
    return given.suffix == ".safetensors" and beside.is_file() and "format" in config_of(beside)


def format_of(config: dict[str, Any]) -> Any:
    """The format that a config names; lerobot's own names its policy's type instead."""
    if "format" not in config and config.get("type") == "diffusion":
        return "lerobot_diffusion"
    return config.get("format")


def files(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Its config and its weights. Raises ValueError where one is absent or is a link to elsewhere."""
    given = Path(path)
    if given.is_dir():
        made = given / CONFIG, given / WEIGHTS
    elif given.suffix == ".safetensors":
        made = given.with_suffix(".json"), given
    else:
        what = "is no .safetensors file" if given.exists() else "is not there"
        raise ValueError(f"{given} {what}: {FORM}")
    for file in made:
        if not file.is_file():
            raise ValueError(f"{file} is not there: {FORM}")
        check_link(file)
    return made


def config_of(path: Path) -> dict[str, Any]:
    """What a config holds. Raises ValueError where it is no JSON object of up to 1 MiB."""
    with opened(path) as file:
        data = file.read(MOST + 1)
    if len(data) > MOST:
        raise ValueError(f"{path} is longer than {MOST} bytes, which no config is")
    return parsed(data, str(path))


def check_link(file: Path) -> None:
    """Raises ValueError where a file is a link out of its folder; a cache of Hugging Face's hub has its
    files in `blobs`, beside `snapshots/REVISION`."""
    folder, real = file.parent.resolve(), file.resolve()
    cached = folder.parent.name == "snapshots" and real.parent == folder.parents[1] / "blobs"
    if not (real.is_relative_to(folder) or cached):
        raise ValueError(
            f"{file} is a link to {real}, outside of its folder: put the file itself there"
        )
