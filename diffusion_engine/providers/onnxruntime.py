"""ONNX Runtime as an executor, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .export import Model, Source
from .file import File
from .provider import Provider
from .runtime import Session, Setting

# Of an ONNX file: TensorProto.DataType.
TYPES = {
    torch.float32: 1, torch.uint8: 2, torch.int8: 3, torch.int16: 5, torch.int32: 6, torch.int64: 7,
    torch.bool: 9, torch.float16: 10, torch.float64: 11, torch.bfloat16: 16,
}  # fmt: skip
FATAL = 4  # the least of what it logs: errors are raised


class OnnxRuntime(Provider):
    """Runs networks in ONNX Runtime, in float32 on the CPU.

    backend  of the step: "auto", "torch" or "cpp"
    threads  that run a call: a number, or a mapping of the entries of a call to one. Where none is said, how
             many are the fastest is measured for each network and number of entries, and kept under the
             user's cache folder
    dtype    float32: its kernels for the CPU have no other

    Threads that wait for work spin where OMP_WAIT_POLICY says active, and do not where it says passive;
    where it says nothing, what is faster is measured too. What is noticed of a network's changes, and which
    are called as the eager executor does, is as for `Native`.
    """

    name, title, extra = "onnxruntime", "ONNX Runtime", "onnx"
    packages = ("onnxruntime", "onnx", "onnxscript")
    each = False

    @property
    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__).partition("-")[0]

    def objection(self, device: torch.device) -> str | None:
        if self.precision is not None:
            return (
                f"ONNX Runtime computes in float32 on a CPU, not in {self.dtype}; leave dtype out"
            )
        return super().objection(device)

    def settings(self, threads: Sequence[int]) -> list[Setting]:
        waiting = {"passive": [False], "active": [True]}
        ways = waiting.get(os.environ.get("OMP_WAIT_POLICY", "").lower(), [False, True])
        # One thread waits for nobody.
        return [Setting(n, way) for n in threads for way in (ways if n > 1 else [False])]

    def load(
        self,
        source: Source,
        model: Model | File,
        setting: Setting,
        shapes: list[list[int]] | None,
        dtype: torch.dtype,
    ) -> Session:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL
        options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, 1
        spinning = str(int(bool(setting.spinning)))
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        given: dict[str, Any] = {"providers": ["CPUExecutionProvider"]}
        return Running(onnxruntime.InferenceSession(source, options, **given), model)


class Running:
    """A session of ONNX Runtime."""

    def __init__(self, session: Any, model: Model | File) -> None:
        self._session, self._model = session, model

    def bound(self, given: Sequence[Tensor], outs: Sequence[Tensor]) -> Callable[[], object]:
        binding = self._session.io_binding()
        for put, names, tensors in (
            (binding.bind_input, self._model.inputs, given),
            (binding.bind_output, self._model.outputs, outs),
        ):
            for name, tensor in zip(names, tensors, strict=True):
                place = tuple(tensor.shape), tensor.data_ptr()
                put(name, "cpu", 0, TYPES[tensor.dtype], *place)
        return partial(self._session.run_with_iobinding, binding)
