"""Sessions of ONNX Runtime on one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from .file import check_same

MISSING = "onnxruntime, which runs it, is not installed: pip install 'diffusion-engine[onnx]'"
NO_DERIVATIVE = (
    "is run by a runtime that takes no derivatives, and one is wanted here: use the torch module that it was "
    "exported from"
)


class Sessions:
    """A file in ONNX Runtime, opened at its first call on each number of threads.

    It has no __dict__: what is kept here is no part of a module, whose parts are watched.
    """

    __slots__ = ("_lock", "_made", "digest", "met", "outputs", "path")

    def __init__(self, path: Path, digest: str, outputs: tuple[str, ...]) -> None:
        self.path, self.digest, self.outputs = path, digest, list(outputs)
        self.met: set[tuple] = set()  # kinds of calls that were looked at
        self._made: dict[int, Any] = {}
        self._lock = Lock()

    def run(self, given: Mapping[str, Tensor]) -> list[Tensor]:
        """A call on torch's number of threads; results lie in memory of the runtime's own."""
        threads = torch.get_num_threads()
        session = self._made.get(threads) or self._opened(threads)
        try:
            arrays = {
                name: (tensor.detach() if tensor.requires_grad else tensor).numpy()
                for name, tensor in given.items()
            }
        except RuntimeError as error:  # torch.func's tensors have no memory
            raise ValueError(f"{self.path.name} {NO_DERIVATIVE} ({error})") from error
        try:
            outs = session.run(self.outputs, arrays)
        except Exception as error:  # the runtime has some ten classes of its own
            shapes = ", ".join(f"{name} {list(t.shape)}" for name, t in given.items())
            raise ValueError(f"{self.path.name} cannot be run on {shapes}: {error}") from error
        return [torch.from_numpy(out) for out in outs]

    def _opened(self, threads: int) -> Any:
        with self._lock:
            if threads not in self._made:
                check_same(self.path, self.digest)
                self._made[threads] = opened(self.path, threads)
            return self._made[threads]


def opened(path: Path, threads: int) -> Any:
    """A session. Raises ValueError where the runtime does not take the file."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path}: {MISSING}", name="onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Its threads would look for work while torch's do the step.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(
            f"{path} is not taken by ONNX Runtime {onnxruntime.__version__}: {error}"
        ) from error
