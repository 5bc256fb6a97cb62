"""The process that reads a checkpoint: what it is asked stands on stdin, what it found on stdout, as JSON.

It gives up network, processes, files to write and most memory before it opens the file.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import safe_file
from .chosen import chosen
from .limits import limit
from .loaded import is_pickle, load


def main() -> None:
    """asked: source, ema, names, unconfined; the weights are written into the open file of `handle`."""
    asked = json.loads(sys.stdin.buffer.read())
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(answer(asked)))


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """The report, or why there is none."""
    source, handle = Path(asked["source"]), int(asked["handle"])
    limits, objection = limit(source.stat().st_size)
    try:
        if objection is not None and not asked["unconfined"] and is_pickle(source):
            raise ValueError(
                f"{source.name} is a pickle, and what reads it cannot be kept from network and files here "
                f"({objection}): where you trust it, --unconfined reads it, without running anything of it"
            )
        return convert(source, handle, asked["ema"], asked["names"]) | {"limits": limits}
    except ValueError as error:
        said = str(error)
    except MemoryError:
        said = f"{source.name} takes more memory than it may: {limits[0]}"
    except (OSError, RuntimeError) as error:  # torch's own word for too little memory among them
        said = f"{source.name} could not be converted ({error}); limits: {'; '.join(limits)}"
    return {"refused": said}


def convert(source: Path, handle: int, ema: str, names: list[str] | None) -> dict[str, Any]:
    """Writes the network's tensors as safetensors; what was kept and dropped."""
    made = chosen(load(source), ema, names)
    for name, tensor in made.tensors.items():
        _check(name, tensor)
    with os.fdopen(handle, "wb") as file:
        safe_file.save(file, made.tensors)
    kinds = Counter(str(t.dtype).removeprefix("torch.") for t in made.tensors.values())
    return {
        "kept": made.kept,
        "decay": made.decay,
        "tensors": len(made.tensors),
        "numbers": sum(t.numel() for t in made.tensors.values()),
        "dtypes": dict(sorted(kinds.items())),
        "besides": made.besides,
        "dropped": made.dropped,
        "prefix": made.prefix,
    }


def _check(name: str, tensor: Tensor) -> None:
    if not safe_file.NAME.fullmatch(name):
        raise ValueError(f"a tensor is called {name[:80]!a}: names are printable ASCII")
    if tensor.layout != torch.strided or tensor.dtype not in safe_file.DTYPES.values():
        raise ValueError(
            f"{name} is {tensor.dtype}, {tensor.layout}; known are {', '.join(safe_file.DTYPES)}, dense"
        )
    if tensor.device.type != "cpu":
        raise ValueError(f"{name} has no numbers: it was saved on {tensor.device}")


if __name__ == "__main__":
    main()
