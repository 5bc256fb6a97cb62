"""Constants as the kernels read them, one copy for all programs of a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..backends.native import module
from ..ops.conv3x3 import PANEL, pack
from .memory import given_back, moved, zeros

_cpu: Any = module("_cpu")  # where it is missing nothing is recorded


class Weights:
    """Packs each constant once for each way in which it is read.

    half  the instructions by which products are done in bf16, as _cpu.bf16() names them; "" in float32
    """

    def __init__(self, half: str = "") -> None:
        self.half = half
        self._kept: dict[tuple, tuple[tuple[Tensor, ...], Tensor]] = {}

    @property
    def bytes(self) -> int:
        """Of what lies beside the network's own."""
        kept = self._kept.values()
        return sum(made.nbytes for given, made in kept if made.data_ptr() != given[0].data_ptr())

    def plain(self, given: Tensor) -> Tensor:
        """As it is, contiguous."""
        return self._made((given,), "plain", lambda t: t.contiguous())

    def kept(self, given: Tensor) -> Tensor:
        """As it is, whatever its strides."""
        return self._made((given,), "kept", lambda t: t)

    def conv(self, weight: Tensor, groups: int) -> Tensor:
        """[out, in / groups, kh, kw] in panels."""

        return self._made((weight,), ("conv", groups), lambda given: _panels(given, groups))

    def linear(self, weights: tuple[Tensor, ...]) -> Tensor:
        """[out, in] one below another, as of one layer, in panels."""

        def pack(*given: Tensor) -> Tensor:
            if len(given) == 1:
                return _panels(given[0], 1)
            packed = _panels(torch.cat(given), 1)
            given_back()
            return packed

        return self._made(weights, "linear", pack)

    def halved(self, weights: tuple[Tensor, ...]) -> Tensor:
        """[out, in, ...] one below another, as of one layer, in bf16, as its products read them."""

        def pack(*given: Tensor) -> Tensor:
            whole = (given[0] if len(given) == 1 else torch.cat(given)).contiguous()
            about = len(whole), whole.shape[1], whole[0, 0].numel()
            packed = zeros(2 * _cpu.conv_bf16_packed_size(*about)).view(torch.uint16)
            _cpu.conv_bf16_pack(whole.data_ptr(), *about, packed.data_ptr())
            if len(given) > 1:
                given_back()
            return packed

        return self._made(weights, "halved", pack)

    def winograd(self, weight: Tensor, tile: int) -> Tensor:
        """[out, in, 3, 3], transformed for tiles of so many pixels."""

        def transformed(given: Tensor) -> Tensor:
            packed = moved(pack(given, tile))
            given_back()  # what came before it was as large
            return packed

        return self._made((weight,), ("winograd", tile), transformed)

    def panels(self, weight: Tensor) -> Tensor:
        """[out, in, 3, 3] as [panel, in, 9, PANEL], which Winograd's kernel transforms itself."""

        def pack(given: Tensor) -> Tensor:
            out, inside = given.shape[:2]
            shape = -(-out // PANEL), inside, 9, PANEL
            packed = zeros(4 * math.prod(shape)).view(torch.float32).view(shape)
            columns = packed.permute(0, 3, 1, 2)
            for panel, part in zip(columns, given.detach().split(PANEL), strict=True):
                panel[: len(part)] = part.reshape(-1, inside, 9)
            return packed

        return self._made((weight,), "panels", pack)

    def _made(self, given: tuple[Tensor, ...], way: object, pack: Callable[..., Tensor]) -> Tensor:
        key = way, *((part.data_ptr(), tuple(part.shape), part.stride()) for part in given)
        if key not in self._kept:
            self._kept[key] = given, pack(*given)  # which keeps what the key names alive
        return self._kept[key][1]


def _panels(given: Tensor, groups: int) -> Tensor:
    given = given.contiguous()
    out, inside, taps = len(given), given.shape[1], given[0, 0].numel()
    size = _cpu.conv_packed_size(out, inside * groups, taps, groups)
    packed = zeros(4 * size).view(torch.float32)
    _cpu.conv_pack(given.data_ptr(), out, inside * groups, taps, groups, packed.data_ptr())
    return packed
