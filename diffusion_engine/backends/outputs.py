"""The network's outputs as the kernels of `step` read them: where they lie, or from a copy.

Kernels address one pixel stride, take 32- and 16-bit numbers, and read while they write the step's
buffers. Whatever a network returns beside that is copied here, for every backend: crops and transposed
maps, float64, negated views, and its own input or label, which the step overwrites.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.step import StepArgs
from .views import strides


class Outputs:
    """What a launch asks of outputs, and the copies of those that it cannot read."""

    def __init__(self, args: StepArgs) -> None:
        written = (args.net_in, args.label, args.end_label, args.denoised, args.slots)
        self._written = [_span(t) for t in written if t is not None]
        self._first = min(first for first, _ in self._written)
        self._end = max(end for _, end in self._written)
        self._check = args.check_outputs
        last = args.slots.ndim == 5 and args.slots.stride(2) < args.slots.stride(4)
        self._format = torch.channels_last if last else torch.contiguous_format

    def readable(self, outs: Sequence[Tensor]) -> bool:
        """Whether kernels read outputs of this kind. Raises where no backend does."""
        self._check(outs)
        return all(map(_readable, outs))

    def overwritten(self, addresses: Sequence[int]) -> bool:
        """Whether the step writes where one of the outputs lies."""
        first, end = self._first, self._end
        return any([first <= a < end and self._among(a) for a in addresses])

    def _among(self, address: int) -> bool:
        return any(first <= address < end for first, end in self._written)

    def copied(self, outs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs, with copies of those that kernels cannot read."""
        return [
            o if _readable(o) and not self._among(o.data_ptr()) else self._copy(o) for o in outs
        ]

    def _copy(self, out: Tensor) -> Tensor:
        dtype = torch.float32 if out.dtype == torch.float64 else out.dtype
        return torch.empty_like(out, dtype=dtype, memory_format=self._format).copy_(out)


def _readable(out: Tensor) -> bool:
    return strides(out) is not None and out.dtype != torch.float64 and not out.is_neg()


def _span(tensor: Tensor) -> tuple[int, int]:
    """First byte and end of a tensor's memory."""
    steps = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (steps + 1) * tensor.itemsize
