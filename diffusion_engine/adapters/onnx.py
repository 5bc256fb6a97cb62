"""A network in an ONNX file as a `ScoreNetwork`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import checks
from ..networks.network import LABEL_DTYPES, OPTIONS, ScoreNetwork
from ..networks.onnx.module import OnnxModule, shape_of
from ..networks.prediction import Prediction, Velocity
from ..processes import GaussianProcess


def from_onnx(
    path: str | Path,
    process: GaussianProcess,
    *,
    shape: tuple[int, ...] | None = None,
    prediction: str | Prediction | Velocity = "eps",
    inputs: Mapping[str, str] | None = None,
    outputs: str | Sequence[str] | None = None,
    **options: Any,
) -> ScoreNetwork:
    """A network in an ONNX file. ONNX Runtime runs it on the CPU, in the executor "eager"; others may read
    the file themselves.

    path     of the file, which stays where and as it is. Its weights may lie beside it, in its folder
    process  the law its training data followed
    shape    of one sample, (C, *pixel), where the file leaves sizes of x free
    inputs   names of inputs, {"x": ..., "label": ...}, with "latent" where it takes a z. Without it they are
             found by their names, such as sample and timestep, and shapes: floats [batch, C, *pixel] and
             numbers [] or [batch]. All others are conditions, by their names
    outputs  the name of the output, or of several whose channels count on; the file's one output, or the one
             that is called sample, where it is left out
    options  of ScoreNetwork

    The label is told in the file's dtype: int64 rounds it. A call is done in parts where the file has a fixed
    batch, or takes one label for all entries. Weights are never changed, so no derivative is taken, and
    nothing is added to them. Raises ValueError where the file is no ONNX file or is cut off, reads weights
    outside of its folder, or leaves open which input is what.
    """
    checks.names("from_onnx", options, OPTIONS)
    parts = process.parts if isinstance(process, GaussianProcess) else 1
    state = None
    if shape is not None:
        sizes = checks.shape(shape)
        state = (parts * sizes[0], *sizes[1:])
    module = OnnxModule(path, inputs, outputs, state, bool(options.get("latent")))
    channels, *pixel = shape_of(module)
    if channels % parts:
        raise ValueError(
            f"{module.path.name} takes {module.x}, and {type(process).__name__} moves {parts} states: its "
            f"channels are no multiple of that"
        )
    told = module.label.dtype
    found: dict[str, Any] = {
        "label_dtype": told if told in LABEL_DTYPES else torch.int64,
        "name": module.path.stem,
    }
    return ScoreNetwork(
        module, process, (channels // parts, *pixel), prediction, **{**found, **options}
    )
