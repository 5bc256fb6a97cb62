"""The replacement of 3x3 convolutions by oneDNN's or Winograd's, whichever is the faster in its place."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from ..backends.native import module
from ..ops.conv3x3 import pack, tiles
from .conv2d import FusedConv2d
from .fused_ops import op
from .packed import packing

ROUNDS = 5
BUDGET = 0.2  # seconds of timing a layer, at least one call of each form
EVICTED = 32 << 20  # bytes, a large last cache

KINDS = 1024  # that are remembered

# What was fastest, 0 for oneDNN or the tile of Winograd's, by the kind of layer and input.
_fastest: dict[tuple, int] = {}


class FusedConv3x3(FusedConv2d):
    """The faster of oneDNN's and Winograd's for a 3x3 Conv2d of stride 1 and the addition after it.

    At the first input of a memory format oneDNN's packed convolution and Winograd's algorithm are timed,
    and what is faster serves that format from then on, whatever the batch. Weights transformed for tiles
    of 2 x 2 pixels take 1.8 times the memory of the weight, beside it, those for 4 x 4 take 4 times.
    """

    def __init__(self, name: str, module: nn.Conv2d) -> None:
        super().__init__(name, module)
        self.tiles: dict[bool, int] = {}  # by whether the input is channels_last; 0 is oneDNN

    @property
    def kind(self) -> str:  # type: ignore[override]
        return "winograd conv2d" if any(self.tiles.values()) else "packed conv2d"

    def _fused(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        tile = self._tile(x)
        if not tile:
            return super()._fused(x, residual)
        if residual is None:
            return self._winograd(x, tile)
        shape = (x.shape[0], self.module.out_channels, *x.shape[2:])
        if residual.shape != shape or _last(residual) != _last(x):
            return self._winograd(x, tile) + residual
        return self._winograd(x, tile, residual)

    def _winograd(self, x: Tensor, tile: int, residual: Tensor | None = None) -> Tensor:
        packed = self._kept(tile, lambda weight: pack(weight, tile))
        return op("conv3x3")(x, self.module.weight, packed, self.module.bias, residual)

    def _tile(self, x: Tensor) -> int:
        last = _last(x)
        if torch.compiler.is_compiling():
            tile = self.tiles.get(last, 0)
            return tile if tile in self.packed else 0
        if last not in self.tiles:
            with packing:  # one choice for all threads
                if last not in self.tiles:
                    self.tiles = {**self.tiles, last: self._choose(x)}
                    if self.packs is not None:
                        self.packs.keep_only(self.tiles.values())
        return self.tiles[last]

    def _choose(self, x: Tensor) -> int:
        """The fastest form for this input; measured once for all layers of a kind."""
        native = module("_cpu")
        if isinstance(native, str):
            return 0
        key = (x.shape, _last(x), self.module.out_channels, torch.get_num_threads(), native.isa())
        if key not in _fastest:
            onednn = super()._fused
            forms: dict[int, Callable[[], Tensor]] = {0: lambda: onednn(x)}
            for tile in tiles(x.shape[1]):
                forms[tile] = lambda tile=tile: self._winograd(x, tile)  # type: ignore[misc]
            if len(_fastest) >= KINDS:
                _fastest.clear()
            _fastest[key] = fastest(forms, x)
        return _fastest[key]


def _last(x: Tensor) -> bool:
    return x.stride(1) == 1


def fastest(forms: dict[int, Callable[[], Tensor]], x: Tensor) -> int:
    """The form with the least median time. Weights come from memory, as they do in a call of a network
    larger than the cache; x is in the cache, where the layer before has left it."""
    for run in forms.values():
        run()
    other = torch.zeros(EVICTED // 4)
    spent: dict[int, list[float]] = {form: [] for form in forms}
    start = time.perf_counter()
    while not spent[0] or (len(spent[0]) < ROUNDS and time.perf_counter() - start < BUDGET):
        for form, run in forms.items():
            other.add_(1.0)
            x.sum()
            begin = time.perf_counter()
            run()
            spent[form].append(time.perf_counter() - begin)
    return min(spent, key=lambda form: median(spent[form]))


def fused_conv(name: str, conv: nn.Conv2d) -> FusedConv2d:
    """The replacement of a Conv2d."""
    same = conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.padding_mode == "zeros"
    plain = conv.stride == conv.dilation == (1, 1) and conv.groups == 1
    return (FusedConv3x3 if same and plain else FusedConv2d)(name, conv)
