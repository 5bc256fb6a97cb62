"""The ops of networks as plain float32 sums: the yardstick of every implementation.

Products are rounded, then added from left to right, one after the other, with no library's blocking and
no vector's width in it; exp and the square root are rounded from float64. A convolution's sum runs over
c, u, v in one chain, an attention's over the head dim and over the keys; the moments of a group are
summed axis after axis, the last first: in one chain over a large map they would lose 70 times more.

Inputs may have the dtypes of the ops; results are float32, to be rounded to the dtype of what is judged.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def allowed(plain: Tensor, exact: Tensor, dtype: torch.dtype, scale: float | None = None) -> float:
    """The error that a result in dtype may have: twice that of the plain sum, plus one rounding unit.

    plain  of this module
    exact  the same in float64
    scale  what the unit is relative to; None is the largest exact value
    """
    size = float(exact.abs().max()) if scale is None else scale
    error = float((plain.to(dtype).double() - exact).abs().max())
    return 2 * error + torch.finfo(dtype).eps * size


def conv3x3(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """Arguments as those of the op."""
    batch, _, *pixels = x.shape
    windows = F.unfold(x.contiguous(), 3, padding=1)  # [B, (c, u, v), pixel]
    y = product(weight.flatten(1), windows).view(batch, -1, *pixels)
    if bias is not None:
        y = y + _per_channel(bias, y)
    return y if residual is None else y + residual


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Arguments as those of the op."""
    q, k, v = (t.float() for t in (q, k, v))
    scores = product(q, k.mT) * (q.shape[3] ** -0.5 if scale is None else scale)
    weights = _exp(scores - scores.amax(-1, keepdim=True))
    weights /= product(weights, weights.new_ones(weights.shape[3], 1))
    return product(weights, v)


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *,
    silu: bool = False, scale: Tensor | None = None, shift: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Arguments as those of the op."""
    h = x.float()
    if residual is not None:
        h = h + _per_channel(residual, h)
    h = h.contiguous().unflatten(1, (groups, -1))
    count = h[0, 0].numel()
    centred = h - _total(h) / count
    variance = _total(centred * centred) / count
    y = (centred / (variance + eps).double().sqrt().float()).flatten(1, 2)
    if weight is not None:
        y = y * _per_channel(weight, y)
    if bias is not None:
        y = y + _per_channel(bias, y)
    if scale is not None:
        y = y * (1.0 + _per_channel(scale, y))
    if shift is not None:
        y = y + _per_channel(shift, y)
    return y / (1.0 + _exp(-y)) if silu else y


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, a [..., N, D] and b [..., D, M], with sums from left to right."""
    columns = a.mT.unsqueeze(-1).contiguous().unbind(-3)
    rows = b.unsqueeze(-2).unbind(-3)
    total = columns[0] * rows[0]
    term = torch.empty_like(total)
    for column, row in zip(columns[1:], rows[1:], strict=True):
        torch.mul(column, row, out=term)
        total += term
    return total


def _total(x: Tensor) -> Tensor:
    """Over all axes but the first two, which are kept; torch's sums and cumsum go other ways."""
    shape = (*x.shape[:2], *[1] * (x.ndim - 2))
    sums = x.cpu().numpy()
    while sums.ndim > 2:
        sums = np.add.accumulate(sums, axis=-1)[..., -1]
    return torch.from_numpy(sums.copy()).view(shape).to(x.device)


def _per_channel(tensor: Tensor, x: Tensor) -> Tensor:
    """[C], [B, C] or the shape of x, as float32 next to x."""
    if tensor.ndim == 1:
        tensor = tensor[None]
    return tensor.float().view(*tensor.shape, *[1] * (x.ndim - tensor.ndim))


def _exp(x: Tensor) -> Tensor:
    return x.double().exp().float()
