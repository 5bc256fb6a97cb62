"""A network as an ONNX model, made once for whoever runs it."""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..executors.buffers import Inputs
from ..executors.lru import Lru
from ..native.called import Called, examples, taken_apart
from ..native.executor import kinds
from ..native.export import sizes, structure, traced, tracing
from ..native.fitness import unfit
from ..native.locks import Locks
from ..native.lower import Refused
from ..networks.network import ScoreNetwork
from ..networks.onnx import OnnxModule
from ..networks.watched import Watched
from .file import File
from .spelled import spelled

PROTOBUF = (1 << 31) - (1 << 24)  # bytes of weights that a file without others beside it can hold
STATIC = 4  # models of one batch size each that are kept
Source = bytes | str  # what is in an ONNX file, or its path
LACKING = re.compile(r"No ONNX function found .*op='([\w.]+)'.* for the (\w+)-valued input")
CHATTY = ("torch.onnx", "onnxscript", "onnx_ir")


class Model:
    """An ONNX model. Its weights are the module's own: it has the values that they have when it is read.

    inputs   the names of the call's tensors
    outputs  of what it returns
    """

    def __init__(self, module: nn.Module, given: Sequence[Tensor], dynamic: bool) -> None:
        with tracing(), _quiet():
            program = traced(module, given, dynamic)
            self._sizes = sizes(program)
            self._program = _translated(program)
        graph = self._program.model.graph
        self.inputs = [str(value.name) for value in graph.inputs]
        self.outputs = [str(value.name) for value in graph.outputs]

    def takes(self, batch: int) -> bool:
        """Whether it runs calls of so many entries."""
        return self._sizes[0] <= batch <= self._sizes[1]

    @property
    def constants(self) -> list[Tensor]:
        """Tensors whose values it has."""
        values = self._program.model.graph.initializers.values()
        raw = [getattr(value.const_value, "raw", None) for value in values]
        return [tensor for tensor in raw if isinstance(tensor, Tensor)]

    @property
    def bytes(self) -> int:
        """Of its weights."""
        return sum(tensor.nbytes for tensor in self.constants)

    @contextmanager
    def read(self) -> Iterator[Source]:
        """What is in its file; where protobuf cannot hold that, the path of one that goes away again."""
        if self.bytes < PROTOBUF:
            with tracing(), _quiet():
                made = self._program.model_proto.SerializeToString()
            yield made
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            with tracing(), _quiet():
                self._program.save(path, external_data=True)
            yield str(path)


class Exported:
    """A network as ONNX models: one of any batch; where the exporter cannot, some of one size each.

    given  inputs of a call
    Raises Refused with the reason where there is none.
    """

    def __init__(self, network: ScoreNetwork, given: Inputs) -> None:
        if objection := unfit(network):
            raise Refused(objection)
        self._module = Called(network.with_module(structure(network.module)), given).eval()
        self.example = [t[:1].clone() for t in taken_apart(given)]
        self._static: Lru[int, Model] = Lru(STATIC)
        self._whole: Model | None = None
        try:
            self._whole = Model(self._module, examples(self.example, 2), dynamic=True)
        except Refused:
            self._of(2)
        self.constants = (self._whole or self._of(2)).constants
        self.watched = Watched(network.module, self.constants)

    def at(self, batch: int) -> Model:
        """The model that runs calls of so many entries. Raises Refused."""
        whole = self._whole
        return whole if whole is not None and whole.takes(batch) else self._of(batch)

    def _of(self, batch: int) -> Model:
        made = self._static.get(batch)
        if made is None:
            made = Model(self._module, examples(self.example, batch), dynamic=False)
            self._static.put(batch, made, 1)
        return made

    def takes(self, batch: int) -> bool:
        """Whether the model of any batch runs calls of so many entries."""
        return self._whole is not None and self._whole.takes(batch)


_known: WeakKeyDictionary[ScoreNetwork, dict[tuple, Exported]] = WeakKeyDictionary()
_locks = Locks()


def exported(network: ScoreNetwork, given: Inputs) -> Exported | File:
    """What a network was exported as, for calls like the given one; now, where it was not, or its module is
    made of other parts. An ONNX file is its own export. Raises Refused."""
    if isinstance(network.module, OnnxModule):
        return File(network, given)
    key = kinds(given)
    with _locks.of((id(network), key)):
        found = _known.setdefault(network, {}).get(key)
        if found is None or not found.watched.same():
            found = _known[network][key] = Exported(network, given)
        return found


def _translated(program: Any) -> Any:
    """A program of torch.export as one of ONNX. Raises Refused."""
    try:
        made = torch.onnx.export(spelled(program), dynamo=True, verbose=False, optimize=False)
        assert made is not None
        made.exported_program = None  # type: ignore[assignment]
        inputs = made.model.graph.inputs
        own = len(inputs)
        # What is an input is no constant: no value of a weight is worked into the graph.
        inputs.extend(made.model.graph.initializers.values())
        made.optimize()
        del inputs[own:]
    except Exception as error:
        raise Refused(f"torch.onnx cannot take it: {_first(error)}") from error
    return made


def _first(error: BaseException) -> str:
    """The first line of what an error says, or of the one that it came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = (str(error).strip().splitlines() or [repr(error)])[0]
    lacking = LACKING.search(said)
    return f"it has no {lacking[1]} of {lacking[2]} numbers" if lacking else said


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells its own developers; while `tracing` is held."""
    loggers = [logging.getLogger(name) for name in CHATTY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
