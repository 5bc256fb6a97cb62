"""The replacement of Conv2d by oneDNN's convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .packed import Packed, packing
from .replacement import Replacement, wants_original


class FusedConv2d(Replacement):
    """oneDNN's convolution, with weights packed once, for a Conv2d and the addition after it.

    The packed copy takes as much memory again as the weight. Threads share it: what is kept is replaced,
    never changed.
    """

    kind = "packed conv2d"
    module: nn.Conv2d

    def __init__(self, name: str, module: nn.Conv2d) -> None:
        super().__init__(name, module)
        self.packs: Packed | None = None
        self.geometry = geometry(module)

    @property
    def packed(self) -> dict[int, Tensor]:
        """The packed weights, oneDNN's at 0."""
        return {} if self.packs is None else self.packs.forms

    def __getstate__(self) -> dict[str, Any]:
        """A copy packs its own weight at its first call."""
        return vars(self) | {"packs": None}

    def objection(self) -> str | None:
        if reason := super().objection():
            return reason
        conv = self.module
        if "weight" not in conv._parameters.keys() | conv._buffers.keys():
            return "a hook makes its weight anew (weight_norm, spectral_norm, pruning); remove that first"
        if conv.weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return "weights are packed for the CPU with oneDNN alone"
        if conv.weight.dtype != torch.float32:
            return f"weights are packed in float32 alone; this one is {conv.weight.dtype}"
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            return f"padding {conv.padding!r} with {conv.padding_mode} is none of oneDNN's"
        return None

    def _weight(self, x: Tensor) -> Tensor:
        conv, padding, shape = self.module, self.module.padding, x.shape
        return self._kept(0, lambda weight: torch.ops.mkldnn._reorder_convolution_weight(
            weight, padding, conv.stride, conv.dilation, conv.groups, shape
        ))  # fmt: skip

    def _kept(self, key: int, pack: Callable[[Tensor], Tensor]) -> Tensor:
        """A packed form of the weight, made at its first use."""
        weight, packs = self.module.weight, self.packs
        if torch.compiler.is_compiling():
            return weight if packs is None else packs.forms.get(key, weight)
        if packs is None:
            with packing:
                packs = self.packs = self.packs or Packed(weight)
        if not packs.of(weight):
            raise RuntimeError(
                f"the weight of {self.name!r} changed after accelerate(), which packed it: call refresh() of "
                "the result of accelerate(). Where it is another tensor at every call (weight_norm, "
                "functional_call), restore() and accelerate() again"
            )
        return packs.form(key, pack)

    def refresh(self, total: int) -> None:
        """Packs the weight again unless it is as it was; `total` is its checksum now."""
        packs, weight = self.packs, self.module.weight
        if packs is not None and not (packs.of(weight) and packs.total == total):
            self.packs = packs.again(weight)

    def _wants_original(self, x: Tensor, residual: Tensor | None = None) -> bool:
        conv = self.module
        taken = x.dtype == torch.float32 and x.ndim == 4 and x.numel() > 0
        if not taken or x.shape[1] != conv.in_channels or x.device.type != "cpu":
            return True
        if geometry(conv) != self.geometry or "_conv_forward" in vars(conv):
            return True
        return wants_original(conv, x, residual)

    def forward(self, x: Tensor) -> Tensor:
        return self.original(x) if self._wants_original(x) else self._fused(x)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """forward(x) + residual, the sum made while the result is in registers."""
        if self._wants_original(x, residual) or residual.dtype != x.dtype:
            return self.original(x) + residual
        return self._fused(x, residual)

    def _fused(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        run, weight = torch.ops.mkldnn._convolution_pointwise, self._weight(x)
        given = weight, self.module.bias, *self._geometry()
        if residual is None:
            return run(x, *given, "none", [], "")
        return run.binary(x, residual, *given, "add", None, None, [], None)

    def _geometry(self) -> tuple[Any, ...]:
        stride, padding, dilation, groups, _ = self.geometry
        return padding, stride, dilation, groups


def geometry(conv: nn.Conv2d) -> tuple[Any, ...]:
    """What decides a convolution beside its weight and bias."""
    return conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode
