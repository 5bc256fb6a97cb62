"""A network's own ONNX file as what a runtime reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ..executors.buffers import Inputs
from ..native.lower import Refused
from ..native.recording import taken_apart
from ..networks.network import ScoreNetwork
from ..networks.onnx import OnnxModule
from ..networks.onnx.file import check_same
from ..networks.onnx.ports import listed


class File:
    """The file of an OnnxModule: it is its own export, and its weights stay as they are.

    given    inputs of a call
    inputs   the names of the call's tensors
    outputs  of what it returns

    Raises Refused where a call is not the file's as it is: where it is done in parts, or cast.
    """

    bytes = 0
    constants: tuple[Tensor, ...] = ()

    def __init__(self, network: ScoreNetwork, given: Inputs) -> None:
        module = network.module
        assert isinstance(module, OnnxModule)
        self._module, condition = module, given[2]
        sole = [port.name for port in module.conditions]
        named = list(condition) if isinstance(condition, Mapping) else sole[: condition is not None]
        self.inputs = [module.x.name, module.label.name, *named]
        if module.latent is not None:
            self.inputs.append(module.latent.name)
        if given[4] is not None:  # the end label is what no condition is
            self.inputs += [name for name in sole if name not in named]
        if sorted(self.inputs) != sorted(port.name for port in module.ports):
            raise Refused(
                f"its file takes the conditions {listed(module.conditions)}, and was given "
                f"{', '.join(named) or 'none'}"
            )
        self.outputs = [port.name for port in module.outputs]
        self.example = [t[:1].clone() for t in taken_apart(given)]
        known = {port.name: port for port in module.ports}
        for name, tensor in zip(self.inputs, self.example, strict=True):
            port = known[name]
            if (
                port in module.shared
                or len(port.shape) != tensor.ndim
                or port.dtype != tensor.dtype
            ):
                raise Refused(
                    f"its file takes {port} and a call gives {str(tensor.dtype).removeprefix('torch.')} for "
                    "each entry"
                )
        if wrong := [port for port in module.outputs if port.dtype != torch.float32]:
            raise Refused(f"its file returns {wrong[0]}, which is not float32")

    def takes(self, batch: int) -> bool:
        """Whether it runs calls of so many entries."""
        return self._module.batch in (None, batch)

    def at(self, batch: int) -> File:
        """What runs calls of so many entries. Raises Refused."""
        if not self.takes(batch):
            raise Refused(
                f"its file has a batch of {self._module.batch}, and a call {batch} entries"
            )
        return self

    @contextmanager
    def read(self) -> Iterator[str]:
        """Its path."""
        check_same(self._module.path, self._module.digest)
        yield str(self._module.path)
