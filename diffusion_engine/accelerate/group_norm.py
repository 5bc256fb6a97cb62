"""Replacements of GroupNorm and of the SiLU after it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from .fused_ops import group_norm_takes, op, settings
from .replacement import Replacement, wants_original


class FusedGroupNorm(Replacement):
    """`group_norm` for a GroupNorm, and for the SiLU that alone reads its result.

    silu  the replacement of that SiLU, or None
    """

    module: nn.GroupNorm

    def __init__(self, name: str, module: nn.GroupNorm) -> None:
        super().__init__(name, module)
        self.silu: FusedSiLU | None = None

    @property
    def kind(self) -> str:  # type: ignore[override]
        return "group_norm" if self.silu is None else "group_norm + SiLU"

    def covers(self) -> Iterable[nn.Module]:
        return () if self.silu is None else (self.module, self.silu.module)

    def expected(self, result: Tensor) -> Tensor:
        return result if self.silu is None else nn.functional.silu(result)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.module
        known = group_norm_takes(x) and x.shape[1] == norm.num_channels
        if not known or wants_original(norm, x):
            return self.original(x)
        if self.silu is None:
            return op("group_norm")(x, *settings(norm))
        return self.silu.mark(op("group_norm")(x, *settings(norm), silu=True))

    def install(self) -> None:
        super().install()
        if self.silu is not None:
            self.silu.install()

    def remove(self) -> None:
        super().remove()
        if self.silu is not None:
            self.silu.remove()


class FusedSiLU(Replacement):
    """The identity for a SiLU that the FusedGroupNorm before it has applied.

    The norm marks its result, so that other calls and other threads, whose results are others, run the SiLU.
    """

    def mark(self, x: Tensor) -> Tensor:
        x._silu = self  # type: ignore[attr-defined]
        return x

    def forward(self, x: Tensor) -> Tensor:
        if getattr(x, "_silu", None) is not self:
            return self.original(x)
        x._silu = None  # type: ignore[attr-defined]
        return x
