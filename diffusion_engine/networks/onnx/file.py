"""An ONNX file, looked at before a runtime reads it: nothing of it is run, and nothing is unpickled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .ports import DTYPES, Port

MISSING = "onnx, which looks at the file, is not installed: pip install 'diffusion-engine[onnx]'"


@dataclass(frozen=True)
class File:
    """path     absolute
    digest   of its bytes, without those of weights that lie beside it
    inputs   without those that have a value of their own
    """

    path: Path
    digest: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def read(given: Any) -> File:
    """What an ONNX file says of itself. Raises ValueError where it is none, is cut off, or keeps weights
    outside of its folder; ModuleNotFoundError without the package onnx."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{given}: {MISSING}", name="onnx") from error
    path = _path(given)
    held = path.read_bytes()
    try:
        model = onnx.load_model_from_string(held)
    except Exception as error:  # protobuf's own, whose class is no part of its interface
        raise ValueError(f"{path} is no ONNX file, or is cut off ({error})") from error
    graph = model.graph
    if not graph.node or not graph.output or not model.opset_import:
        raise ValueError(f"{path} is no ONNX file, or is cut off: it has no operations")
    for tensor in _tensors(model, onnx.TensorProto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_outside(path, tensor)
    own = {tensor.name for tensor in graph.initializer}
    own |= {tensor.values.name for tensor in graph.sparse_initializer}
    return File(
        path,
        digest_of(held),
        tuple(_port(path, "input", value) for value in graph.input if value.name not in own),
        tuple(_port(path, "output", value) for value in graph.output),
    )


def digest_of(held: bytes) -> str:
    return hashlib.sha256(held).hexdigest()[:16]


def check_same(path: Path, digest: str) -> None:
    """Raises ValueError where a file is another one than it was."""
    if digest_of(path.read_bytes()) != digest:
        raise ValueError(f"{path} has changed since a network was made of it: make it again")


def _path(given: Any) -> Path:
    try:
        path = Path(given).absolute()
    except TypeError as error:
        said = type(given).__name__ if isinstance(given, bytes) else repr(given)
        raise ValueError(
            f"path={said}: give the path of an ONNX file, not what is in it"
        ) from error
    if not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'not there'}: give a file")
    return path


def _tensors(message: Any, kind: type) -> Iterator[Any]:
    """All tensors of a message: weights, constants of operations, those of inner graphs and functions."""
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            if isinstance(part, kind):
                yield part
            else:
                yield from _tensors(part, kind)


def _check_outside(path: Path, tensor: Any) -> None:
    """Raises ValueError where bytes of a weight do not lie in the file's own folder, or not all of them.

    The folder is that of the name and that of the file itself: a cache may keep both as links into another.
    """
    about = {entry.key: entry.value for entry in tensor.external_data}
    place = about.get("location", "")
    other = Path(place)
    real, folders = (path.parent / other).resolve(), (path.parent, path.resolve().parent)
    leaves = other.is_absolute() or ".." in other.parts
    if not place or leaves or not any(real.is_relative_to(f.resolve()) for f in folders):
        raise ValueError(
            f"{path}: the weight {tensor.name!r} lies in {place!r}, which is not in the file's own folder; "
            "nothing else is read"
        )
    if not real.is_file():
        raise ValueError(
            f"{path}: the weight {tensor.name!r} lies in {place!r}, which is not there"
        )
    end = int(about.get("offset") or 0) + int(about.get("length") or 0)
    if end > real.stat().st_size:
        raise ValueError(
            f"{path}: the weight {tensor.name!r} ends at byte {end} of {place!r}, which is cut off: it has "
            f"{real.stat().st_size}"
        )


def _port(path: Path, kind: str, value: Any) -> Port:
    tensor = value.type.tensor_type
    dtype: torch.dtype | None = DTYPES.get(tensor.elem_type)
    if dtype is None or not tensor.HasField("shape"):
        what = "no tensor of a known rank" if dtype else "of a type that is not taken"
        known = ", ".join(str(d).removeprefix("torch.") for d in DTYPES.values())
        raise ValueError(f"{path}: the {kind} {value.name!r} is {what}; it may be one of {known}")
    sizes = [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    ]
    return Port(value.name, dtype, tuple(sizes))
