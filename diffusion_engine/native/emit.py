"""Operations as what the C++ runner is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..ops.conv3x3 import tiles
from . import operations as ops
from .values import Value
from .weights import Weights

MANY, SOME, FEW, CACHED = 400, 36, 16, 1 << 14  # pixels, and elements of a weight's tap
NARROW = 4  # output channels that are summed term by term as fast
WIDE = 256  # pixels
DEEP = 16  # input channels from which on a product in bf16 is worth its roundings
ACTIVATIONS = ("none", "silu", "gelu", "gelu_tanh", "relu")


class Emitter:
    """Parameters of operations whose values lie at known addresses.

    address  of a value's first element
    weights  what constants are packed into
    """

    def __init__(self, address: Callable[[Value], int], weights: Weights) -> None:
        self.address, self.weights = address, weights

    @staticmethod
    def tile(op: ops.Conv) -> int:
        """Pixels along an edge of the tiles in which Winograd's algorithm does a convolution; 0 where sums
        are made term by term. It depends on the layer alone, so that no bit depends on a batch."""
        plain = op.stride == op.dilation == op.padding == (1, 1) and op.groups == 1
        plain = plain and op.out_size == tuple(op.upsample * n for n in op.size)
        if op.weight.shape[2:] != (3, 3) or not plain:
            return 0
        pixels, (out, channels) = op.out_size[0] * op.out_size[1], op.weight.shape[:2]
        # Of a 4x4 picture the weight takes longer to read than all products, unless it stays in a cache.
        few = pixels < FEW or (pixels == FEW and out * channels > CACHED)
        wanted = 4 if pixels >= SOME else 0 if few else 2
        if wanted in tiles(channels):
            return wanted
        return 0 if out <= NARROW else min(2, wanted)

    def half(self, op: ops.Operation) -> bool:
        """Whether an operation's products are done in bf16. As with tiles it depends on the layer alone."""
        if not self.weights.half or not isinstance(op, ops.Conv | ops.Linear):
            return bool(self.weights.half) and isinstance(op, ops.Attention)
        if op.x.shape[2] < DEEP or op.out.shape[2] <= NARROW:
            return False
        return isinstance(op, ops.Linear) or (op.groups == 1 and not self.sooner(op))

    def sooner(self, op: ops.Conv) -> bool:
        """Whether Winograd's algorithm takes less time in float32 than the products do in bf16: a quarter of
        them, where dot products are twice as fast. Of W1's layers it does from 16x16 pixels on, by 1.4 to
        1.6 times; of 8x8 pixels bf16 is 1.3 times as fast."""
        wide = op.out_size[0] * op.out_size[1] >= WIDE
        return self.weights.half == "avx512_bf16" and wide and self.tile(op) == 4

    @staticmethod
    def given(op: ops.Conv) -> bool:
        """Whether Winograd's algorithm transforms the weight in every call: as it is it has a quarter of the
        numbers. On one thread a layer of 16x16 pixels takes 7 % longer so, and one of 32x32 15 %."""
        out, channels = op.weight.shape[:2]
        return out * channels > CACHED and op.out_size[0] * op.out_size[1] < MANY

    def rows(self, value: Value) -> tuple[int, int, int]:
        """[B, N, C] as (address, batch stride, row stride)."""
        return self.address(value), value.strides[0], value.strides[1]

    def sample(self, given: Value | Tensor) -> tuple[int, int]:
        """[B, C] as (address, batch stride)."""
        if isinstance(given, Value):
            return self.address(given), given.strides[0]
        kept = self.weights.plain(given)
        return kept.data_ptr(), kept.stride(0)

    def source(self, given: Value | Tensor) -> tuple[int, tuple[int, ...]]:
        """(address, strides) of a value or a constant, whatever its strides."""
        if isinstance(given, Value):
            return self.address(given), given.strides
        return self.weights.kept(given).data_ptr(), given.stride()

    def constant(self, given: Tensor) -> int:
        return self.weights.plain(given).data_ptr()

    def epilogue(self, params: Any, epilogue: ops.Epilogue) -> None:
        if epilogue.bias is not None:
            params.bias = self.constant(epilogue.bias)
        if epilogue.shift is not None:
            params.shift = self.sample(epilogue.shift)
        params.activation = ACTIVATIONS.index(epilogue.activation)
        if epilogue.gate is not None:
            params.gate = self.sample(epilogue.gate)
        if epilogue.residual is not None:
            params.residual = self.rows(epilogue.residual)


# The parameters of an operation, which Program.add takes; None where only torch does it.
Maker = Callable[[Emitter, Any], Any]
