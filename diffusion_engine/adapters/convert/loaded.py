"""What a file of a checkpoint holds: the one place that calls torch.load, as weights alone.

It is called in a process of its own, see `child`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import safe_file
from .named import named

ZIP = b"PK\x03\x04"
# Where torch says what it met; before that it advises to read the file as a pickle.
MET = re.compile(r"(?:WeightsUnpickler error: |Trying to load )(.+)")
STATE_DICT = (
    "with the repository's own code write torch.save(network.state_dict(), FILE), and convert that"
)
SOURCE = (
    "it is a network pickled with its source, as EDM's files are; where you trust it, load it by that "
    "repository's own code, write torch.save(loaded['ema'].state_dict(), FILE), and convert that"
)
# What repositories put beside their weights, and what to do instead.
KNOWN = {
    "argparse.": "it holds the options of its training; where the repository also writes a file of the "
    f"network alone, as netG_*.pth of denoising-diffusion-gan, convert that; else {STATE_DICT}",
    "torch_utils.": SOURCE,
    "dnnlib.": SOURCE,
    "ml_collections.": f"it holds the config of its training; {STATE_DICT}",
    "omegaconf.": f"it holds the config of its training; {STATE_DICT}",
    "numpy.": f"it holds values of numpy beside its tensors; {STATE_DICT}",
}
OTHERS = f"nothing of it was run. Where you trust the file, {STATE_DICT}"


def load(path: Path) -> Any:
    """Tensors by name, or mappings and lists of them, without running anything of the file.

    Raises ValueError where it is of no known kind, is damaged, or wants something made or called that is no
    tensor.
    """
    if path.suffix == ".safetensors":
        return safe_file.load(path)
    if path.suffix == ".npz":
        return _of_numpy(path)
    if is_pickle(path):
        return _of_torch(path, mapped=_head(path) == ZIP)
    from .flax_file import load as of_flax

    return of_flax(path)


def is_pickle(path: Path) -> bool:
    """Whether `load` reads a file by torch.load."""
    head = _head(path)
    return path.suffix not in (".safetensors", ".npz") and (head[:1] == b"\x80" or head == ZIP)


def _head(path: Path) -> bytes:
    with safe_file.opened(path) as file:
        return file.read(4)


def _of_torch(path: Path, mapped: bool) -> Any:
    """A file of torch.save. A zip of the newer form is mapped, so that what is dropped is never read."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except Exception as error:  # of a damaged or hostile file it may be nearly anything
        if found := named(path, str(error)):
            what = ", ".join(found)
            raise ValueError(f"{path.name} wants to call {what}: {_advice(found)}") from error
        lines = str(error).splitlines() or [type(error).__name__]
        met = MET.search(str(error))
        said = met[1] if met else lines[0].partition(". ")[0]
        raise ValueError(
            f"{path.name} is no file of torch.save, is damaged, or holds more than tensors ({said[:200]})"
        ) from error


def _advice(found: list[str]) -> str:
    for start, advice in KNOWN.items():
        if any(name.startswith(start) for name in found):
            return f"{advice}. Nothing of it was run"
    return OTHERS


def _of_numpy(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: tensor_of(arrays[name]) for name in arrays.files}
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{path.name} is no .npz file of plain arrays ({error})") from error


def tensor_of(array: np.ndarray) -> Tensor:
    """A tensor of an array of little-endian numbers."""
    return torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape)
