"""`OnnxModule`: a network in an ONNX file, called as any module is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.forward_ad import unpack_dual

from ... import checks
from .file import check_same, read
from .ports import Port, chosen, listed, roles
from .session import NO_DERIVATIVE, Sessions

# Runs the file: tensors of its inputs, by name and of its dtypes, to those of its outputs.
Run = Callable[[Mapping[str, Tensor]], Sequence[Tensor]]


class OnnxModule(nn.Module):
    """A network in an ONNX file, called as module(x, label), with a condition behind them, by ONNX Runtime.

    A condition that is one tensor is the file's one other input; a mapping has their names. A call is done in
    parts where the file has a fixed batch, or takes one label for all entries. Threads may share it; a
    copy, here or in another process, opens the file again.

    path     of the file, which stays as it is meanwhile
    inputs   names of inputs, {"x": ..., "label": ...}, where their names and shapes leave it open
    outputs  name of the output, or of several whose channels count on
    state    sizes of x behind the batch, where the file leaves them free
    latent   whether it takes a latent z behind the label
    digest   of the file, where it has to be one that was read before

    Raises ValueError where the file is no ONNX file, or leaves open which input is what.
    """

    def __init__(
        self,
        path: str | Path,
        inputs: Mapping[str, str] | None = None,
        outputs: str | Sequence[str] | None = None,
        state: tuple[int, ...] | None = None,
        latent: bool = False,
        digest: str | None = None,
    ) -> None:
        super().__init__()
        if digest is not None:
            check_same(Path(path), digest)
        file = read(path)
        self.path, self.digest, self.ports = file.path, file.digest, file.inputs
        self.outputs = chosen(file.outputs, outputs)
        found = roles(file.inputs, inputs, state, latent)
        self.x, self.label, self.latent = found["x"], found["label"], found.get("latent")
        taken = list(found.values())
        self.conditions = tuple(p for p in file.inputs if p not in taken)
        self.state = state
        self.batch = self._batch()
        self.shared = tuple(p for p in (self.label, *self.conditions) if self._is_shared(p))
        self._conditions = frozenset(p.name for p in self.conditions)
        self._sessions = Sessions(file.path, file.digest, tuple(p.name for p in self.outputs))
        self.training = False

    def __reduce__(self) -> tuple:
        inputs = {"x": self.x.name, "label": self.label.name}
        if self.latent is not None:
            inputs["latent"] = self.latent.name
        outputs = tuple(p.name for p in self.outputs)
        return type(self), (
            self.path, inputs, outputs, self.state, self.latent is not None, self.digest,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{self.path.name}, {self.digest}"

    def _batch(self) -> int | None:
        """The number of entries that every call has, where the file fixes it."""
        ports = [p for p in self.ports if p.shape and (p is not self.label or p.shape[0] != 1)]
        fixed = {size for p in ports if isinstance(size := p.shape[0], int)}
        if len(fixed) > 1:
            raise ValueError(f"{self.path} has inputs of several batches: {listed(self.ports)}")
        return fixed.pop() if fixed else None

    def _is_shared(self, port: Port) -> bool:
        """Whether a call has one number of it for all entries."""
        return not port.shape or (port is self.label and port.shape[0] == 1 and self.batch != 1)

    def forward(self, x: Tensor, label: Tensor, /, *rest: Any, **named: Tensor) -> Any:
        return self.called(self._sessions.run, x, label, *rest, **named)

    def through(self, run: Run) -> Callable[..., Any]:
        """The module called through another runtime that holds its file.

        run  tensors of the file's inputs, by name and of its dtypes, to those of `outputs`, in order
        """
        return partial(self.called, run)

    def called(self, run: Run, x: Tensor, label: Tensor, /, *rest: Any, **named: Tensor) -> Any:
        """A call whose operations `run` does."""
        given = self._given(x, label, rest, named)
        self._check(given)
        n = x.shape[0]
        outs: Sequence[Tensor]
        if self.shared or (self.batch is not None and self.batch != n):
            outs = self._in_parts(run, given, n)
        else:
            outs = run({p.name: self._fed(p, given[p.name]) for p in self.ports})
        dtype = x.dtype
        made = [out if out.dtype is dtype else out.to(dtype) for out in outs]
        return made[0] if len(made) == 1 else tuple(made)

    def _given(
        self, x: Tensor, label: Tensor, rest: Sequence[Any], named: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What a call gives, by the file's names."""
        unnamed, told = list(rest), dict(named)
        given = {self.x.name: x, self.label.name: label}
        if self.latent is not None:
            given[self.latent.name] = unnamed.pop(0)
        for tensor in unnamed:
            left = [p.name for p in self.conditions if p.name not in told]
            if len(left) != 1:
                raise ValueError(
                    f"the condition is one tensor, and {self.path.name} takes the conditions "
                    f"{listed(self.conditions)}: give a mapping by their names"
                )
            told[left[0]] = tensor
        if told.keys() != self._conditions:
            raise ValueError(
                f"{self.path.name} takes the conditions {listed(self.conditions)}, and was given "
                f"{', '.join(told) or 'none'}"
            )
        return given | told

    def _check(self, given: Mapping[str, Tensor]) -> None:
        """Raises ValueError where a tensor is none that the file takes, or a derivative is wanted."""
        kind = tuple([(name, t.shape, t.dtype, t.is_cpu) for name, t in given.items()])
        if kind not in self._sessions.met:
            for port in self.ports:
                self._check_port(port, given[port.name])
            self._sessions.met.add(kind)
        graph = torch.is_grad_enabled() and any(t.requires_grad for t in given.values())
        # Each look at a tensor costs microseconds; where no level is open none has a tangent.
        forward = getattr(forward_ad, "_current_level", 0) >= 0
        if graph or (forward and any(unpack_dual(t).tangent is not None for t in given.values())):
            raise ValueError(f"{self.path.name} {NO_DERIVATIVE}")

    def _check_port(self, port: Port, tensor: Tensor) -> None:
        sizes, dtype, advice = tuple(tensor.shape[1:]), tensor.dtype, ""
        one = port is self.label or not port.shape  # a number of each entry
        fits = not sizes if one else port.takes(sizes)
        if not tensor.is_cpu:
            advice = f"; a file runs on the CPU, and this lies on {tensor.device}: say device='cpu'"
        elif port is self.x and dtype not in (port.dtype, torch.float32):
            advice = ": leave dtype out, a file computes in the one that it was exported in"
        elif fits and not (dtype.is_floating_point and not port.dtype.is_floating_point):
            return
        raise ValueError(
            f"{self.path.name} takes {port}, and was given {str(dtype).removeprefix('torch.')} "
            f"{list(tensor.shape)}{advice}"
        )

    def _in_parts(self, run: Run, given: Mapping[str, Tensor], n: int) -> list[Tensor]:
        """Calls of entries that have their shared numbers in common, as many at once as the file takes; a
        call that lacks entries repeats its last one."""
        values = zip(*(given[p.name].tolist() for p in self.shared), strict=True)
        alike: dict[Any, list[int]] = {}
        for i, key in enumerate(values if self.shared else [()] * n):
            alike.setdefault(key, []).append(i)
        made: list[Tensor] = []
        for rows in alike.values():
            size = self.batch or len(rows)
            for first in range(0, len(rows), size):
                part = rows[first : first + size]
                index = torch.tensor(part + part[-1:] * (size - len(part)))
                outs = run({p.name: self._fed(p, given[p.name], index) for p in self.ports})
                if not made:
                    made = [out.new_empty(n, *out.shape[1:]) for out in outs]
                for whole, out in zip(made, outs, strict=True):
                    whole[index[: len(part)]] = out[: len(part)]
        return made

    def _fed(self, port: Port, tensor: Tensor, index: Tensor | None = None) -> Tensor:
        """An input as the file takes it; with an index entries of it, or the number that they share."""
        if tensor.dtype is not port.dtype:
            tensor = tensor.to(port.dtype)
        if index is not None:
            tensor = tensor[index[:1] if port in self.shared else index]
        rank = len(port.shape)
        if port is self.label and rank == 2:
            return tensor[:, None]
        return tensor if rank else tensor[0]


def shape_of(module: OnnxModule) -> tuple[int, ...]:
    """Sizes of x behind the batch. Raises ValueError where the file leaves them free."""
    sizes = module.state or module.x.shape[1:]
    if any(isinstance(size, str) for size in sizes):
        raise ValueError(
            f"{module.path.name} leaves sizes of x free, {module.x}: give shape=(channels, *pixel)"
        )
    return checks.shape(sizes)
