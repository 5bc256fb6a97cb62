"""OpenVINO as an executor, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..backends import machine
from .export import Model, Source
from .file import File
from .provider import Provider
from .runtime import Session, Setting

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class OpenVINO(Provider):
    """Runs networks in OpenVINO on the CPU, compiled for each size of a call.

    backend  of the step: "auto", "torch" or "cpp"
    threads  that run a call: a number, or a mapping of the entries of a call to one. Where none is said, how
             many are the fastest is measured for each network and number of entries, and kept under the
             user's cache folder
    dtype    that it computes in: float32; or bfloat16, where the processor has that
    fallback whether a network that bfloat16 is too coarse for is done in float32; it is refused otherwise

    The network, its inputs and its outputs are float32. What is noticed of a network's changes, and which are
    called as the eager executor does, is as for `Native`.
    """

    name, title, extra = "openvino", "OpenVINO", "openvino"
    packages = ("openvino", "onnx", "onnxscript")
    each = True

    @property
    def version(self) -> str:
        import openvino

        return str(openvino.__version__).partition("-")[0]

    def objection(self, device: torch.device) -> str | None:
        if reason := super().objection(device):
            return reason
        if self.precision is not None and not machine.bf16().kind:
            return machine.emulated(f"executor={self.name!r} in {self.dtype}")
        return None

    def settings(self, threads: Sequence[int]) -> list[Setting]:
        return [Setting(n) for n in threads]

    def load(
        self,
        source: Source,
        model: Model | File,
        setting: Setting,
        shapes: list[list[int]] | None,
        dtype: torch.dtype,
    ) -> Session:
        import openvino

        core = openvino.Core()
        read = core.read_model(source)
        if shapes is not None:
            own = _names(read)
            sizes = zip(model.inputs, shapes, strict=True)
            read.reshape({name: shape for name, shape in sizes if name in own})
        asked = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": setting.threads,
            "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        }
        return Running(core.compile_model(read, "CPU", asked), model)


class Running:
    """A compiled model of OpenVINO."""

    def __init__(self, compiled: Any, model: Model | File) -> None:
        self._compiled, self._model = compiled, model
        self._inputs = _names(compiled)

    def bound(self, given: Sequence[Tensor], outs: Sequence[Tensor]) -> Callable[[], object]:
        from openvino import Tensor as Shared

        request = self._compiled.create_infer_request()
        own = [*self._model.inputs, *self._model.outputs]
        for name, tensor in zip(own, (*given, *outs), strict=True):
            if name in self._inputs or name in self._model.outputs:
                request.set_tensor(name, Shared(tensor.detach().numpy(), shared_memory=True))
        return partial(request.infer, share_outputs=True)


def _names(model: Any) -> set[str]:
    """Of the inputs that it has: those that nothing reads are left out."""
    return {name for port in model.inputs for name in port.get_names()}
