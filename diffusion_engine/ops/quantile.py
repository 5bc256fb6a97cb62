"""The op `quantile`: a quantile of the magnitudes of each sample, as dynamic thresholding takes it (Saharia
et al. 2022, 2.3). This file defines it.

For every sample b of n elements, with a_0 <= ... <= a_{n-1} its sorted |x[i]|, in float64:

    position = q[b] (n - 1),  k = floor(position),  w = position - k
    out[b]   = a_k                          where w = 0 or a_k = a_{k+1}
             = a_k + w (a_{k+1} - a_k)      else

the linear interpolation of torch.quantile, rounded to float32 once. A NaN in a sample makes its quantile
NaN; a sample whose q[b] is not in [0, 1] is not read, and its quantile is NaN. The selection is exact: the
bits are the same on every backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import checks
from . import launches
from .op import Op, Operator
from .written import check_written

Launch = Callable[[Sequence[Tensor]], None]


@dataclass(frozen=True, eq=False)
class QuantileArgs:
    """The tensors, checked.

    out  [B] of the dtype of x; written
    x    [B, C, *pixel] float32 (float64 on the reference only)
    q    [B] float64, from 0 to 1; contiguous

    Raises ValueError or TypeError on another shape or dtype.
    """

    out: Tensor
    x: Tensor
    q: Tensor

    def __post_init__(self) -> None:
        check(self.x, self.q)
        if self.out.shape != self.q.shape or self.out.dtype != self.x.dtype:
            raise ValueError(
                f"quantile writes out {list(self.q.shape)} {self.x.dtype}, got {list(self.out.shape)} "
                f"{self.out.dtype}"
            )
        if self.out.device != self.x.device:
            raise ValueError(
                f"quantile: x is on {self.x.device}, out on {self.out.device}; move one"
            )
        check_written("quantile", out=self.out)

    def tensors(self) -> tuple[Tensor, ...]:
        """What a launch takes."""
        return self.out, self.x, self.q


def check(x: Tensor, q: Tensor) -> None:
    """Raises ValueError or TypeError where x and q do not go together."""
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(
            f"quantile needs x [batch, channels, *pixel] with elements, got {list(x.shape)}"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"quantile: x is {x.dtype}; cast it to float32")
    if q.shape != x.shape[:1] or q.dtype != torch.float64:
        raise ValueError(
            f"quantile needs q [{len(x)}] float64, one a sample; got {list(q.shape)} {q.dtype}"
        )
    if q.device != x.device:
        raise ValueError(f"quantile: x is on {x.device}, q on {q.device}; move one")


def bind(args: QuantileArgs) -> Launch:
    """The definition in plain torch."""

    def launch(tensors: Sequence[Tensor]) -> None:
        out, x, q = tensors
        ordered = x.flatten(1).abs().sort(dim=1).values  # NaN last
        last = ordered.shape[1] - 1
        inside = (q >= 0.0) & (q <= 1.0)
        position = torch.where(inside, q, 0.0) * last
        k = position.floor().long()
        low, high = (
            ordered.gather(1, at.clamp(max=last).view(-1, 1)).flatten().double()
            for at in (k, k + 1)
        )
        w = position - k
        between = low + w * (high - low)
        found = torch.where((w == 0.0) | (low == high), low, between)
        whole = inside & ~ordered[:, last].isnan()
        out.copy_(torch.where(whole, found, torch.nan))

    return launch


def quantile(x: Tensor, q: float | Tensor, *, backend: str = "auto") -> Tensor:
    """The q-quantile of |x| of each sample, [B], linearly interpolated.

    x        [B, C, *pixel] float32 (float64 on the reference only)
    q        from 0 to 1, or [B] float64 of such; a sample whose q is none, NaN say, gives NaN
    backend  "auto", or the name of one

    The bits are the same on every backend. There is no derivative.
    Raises ValueError or TypeError on arguments that do not go together.
    """
    if not isinstance(q, Tensor):
        wanted = "a quantile's share is from 0 to 1, such as 0.995"
        if not 0.0 <= (share := checks.number("q", q, wanted)) <= 1.0:
            raise ValueError(f"q={share}: {wanted}")
        q = torch.full(x.shape[:1], share, dtype=torch.float64, device=x.device)
    check(x, q)
    out, given = x.new_empty(x.shape[:1]), (x, q)
    launches.call("quantile", backend, (out, *given), (), lambda: QuantileArgs(out, *given))
    return out


def plain(device: torch.device) -> QuantileArgs:
    """One sample of one channel."""
    x = torch.zeros(1, 1, 2, 2, device=device)
    return QuantileArgs(x[:, 0, 0, 0].clone(), x, x.new_zeros(1, dtype=torch.float64))


def _fake(x: Tensor, q: Tensor) -> Tensor:
    check(x, q)
    return x.new_empty(x.shape[:1])


SCHEMA = "quantile(Tensor x, Tensor q) -> Tensor"

OP = Op(bind=bind, plain=plain, operators=(Operator(SCHEMA, quantile, _fake),))
