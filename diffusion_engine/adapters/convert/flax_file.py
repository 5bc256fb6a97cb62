"""A checkpoint of flax (flax.serialization.to_bytes): msgpack, with arrays as extensions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import safe_file

ARRAY, COMPLEX, SCALAR = 1, 2, 3  # flax' kinds of extensions
CHUNKED = "__msgpack_chunked_array__"
DTYPES = (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
)  # fmt: skip
MISSING = "msgspec, which reads checkpoints of flax, is not installed: pip install msgspec"


def load(path: Path) -> Any:
    """Its tree: mappings by name, tensors and numbers. Raises ValueError where it is none."""
    try:
        import msgspec
    except ModuleNotFoundError as error:
        raise ValueError(f"{path.name} is no file of torch.save; {MISSING}") from error
    with safe_file.opened(path) as file:
        data = file.read()
    try:
        tree = msgspec.msgpack.Decoder(ext_hook=_extension).decode(data)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path.name} is no checkpoint of torch.save, safetensors, numpy or flax, or is damaged ({error})"
        ) from error
    return _joined(tree)


def _extension(kind: int, data: memoryview) -> Any:
    import msgspec

    if kind not in (ARRAY, SCALAR):
        raise ValueError(f"an extension of kind {kind}, which is no array")
    shape, dtype, content = msgspec.msgpack.decode(data)
    made = _array(shape, dtype, content)
    return made.reshape(()) if kind == SCALAR else made


def _array(shape: list[int], dtype: str, content: bytes) -> Tensor:
    if dtype not in DTYPES:
        raise ValueError(f"an array of {dtype}; known are {', '.join(DTYPES)}")
    half = dtype == "bfloat16"  # numpy has none
    flat = torch.from_numpy(np.frombuffer(content, "int16" if half else dtype).copy())
    if flat.numel() != math.prod(shape):
        raise ValueError(f"an array of {shape} with {flat.numel()} numbers")
    return (flat.view(torch.bfloat16) if half else flat).reshape(tuple(shape))


def _joined(tree: Any) -> Any:
    """Arrays that flax wrote in parts, as they were."""
    if not isinstance(tree, dict):
        return tree
    made = {name: _joined(inner) for name, inner in tree.items()}
    if CHUNKED not in made:
        return made
    try:
        shape, parts = made["shape"], made["chunks"]
        sizes = [int(shape[str(i)]) for i in range(len(shape))]
        return torch.cat([parts[str(i)].reshape(-1) for i in range(len(parts))]).reshape(sizes)
    except Exception as error:
        raise ValueError(f"an array in parts that do not make one ({error})") from error
