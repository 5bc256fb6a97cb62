"""The op `group_norm`: adaptive group normalisation with SiLU, in one pass. This file defines it.

For every sample b and group g of channels (Wu and He 2018; scale and shift as in Dhariwal and
Nichol 2021, 7.1), in float32:

    h         = x + residual
    mean, var = of h over the group's channels and all pixels, var without Bessel's correction
    y         = (h - mean) / sqrt(var + eps) weight[c] + bias[c]
    out       = silu(y (1 + scale[b, c]) + shift[b, c])        silu(y) = y / (1 + exp(-y)), optional
    summed    = h

Kernels merge the means and squared deviations of parts in a fixed order (Chan et al. 1979): two runs
give the same bits, and a sample gives the same bits in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from . import launches
from .op import Op, Operator
from .written import check_written

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Launch = Callable[[Sequence[Tensor | None]], None]


@dataclass(frozen=True, eq=False)
class GroupNormArgs:
    """The tensors and options of a group norm, checked.

    x         [B, C, *pixel] float32, bfloat16 or float16 (float64 on the reference only)
    out       the shape of x, any of those dtypes; written. May be x itself.
    weight    [C], any of those dtypes
    bias      [C]
    scale     [B, C]
    shift     [B, C]
    residual  the shape of x, or [B, C]: one value for all pixels, as a time embedding is
    summed    the shape of x; written with h. May be x or a residual of that shape.
    groups    of channels, a divisor of C
    eps       added to the variance, > 0
    silu      whether to apply it

    Raises ValueError on a wrong shape or option and TypeError on a wrong dtype.
    """

    x: Tensor
    out: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    residual: Tensor | None = None
    summed: Tensor | None = None
    groups: int = 1
    eps: float = 1e-5
    silu: bool = False

    def __post_init__(self) -> None:
        check(self.x, self.groups, self.eps)
        shape, channels = self.x.shape, self.x.shape[1]
        shapes: dict[str, tuple[tuple[int, ...], ...]] = {
            "out": (shape,), "summed": (shape,), "residual": (shape, shape[:2]),
            "weight": ((channels,),), "bias": ((channels,),),
            "scale": (shape[:2],), "shift": (shape[:2],),
        }  # fmt: skip
        for name, allowed in shapes.items():
            tensor = getattr(self, name)
            if tensor is None:
                continue
            if tuple(tensor.shape) not in allowed:
                wanted = " or ".join(str(list(s)) for s in allowed)
                raise ValueError(
                    f"group_norm of x {list(shape)} needs {name} {wanted}, got {list(tensor.shape)}"
                )
            if tensor.dtype not in (*DTYPES, torch.float64):
                raise TypeError(f"group_norm: {name} is {tensor.dtype}; cast it to float32")
            if tensor.device != self.x.device:
                raise ValueError(
                    f"group_norm: x is on {self.x.device}, {name} on {tensor.device}; move one"
                )
        check_written("group_norm", out=self.out, summed=self.summed)

    def tensors(self) -> tuple[Tensor | None, ...]:
        """What a launch takes."""
        return (
            self.x, self.out, self.weight, self.bias, self.scale, self.shift, self.residual, self.summed,
        )  # fmt: skip


def check(x: Tensor, groups: int, eps: float = 1e-5) -> None:
    """Raises ValueError or TypeError where x and the options of a group norm do not go together."""
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(
            f"group_norm needs x [batch, channels, *pixel] with elements, got {list(x.shape)}"
        )
    if x.dtype not in (*DTYPES, torch.float64):
        raise TypeError(f"group_norm: x is {x.dtype}; cast it to float32, bfloat16 or float16")
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"groups={groups} does not divide the {x.shape[1]} channels of x")
    if not eps > 0.0:
        raise ValueError(f"eps={eps}: the number added to the variance is above 0, such as 1e-5")


def bind(args: GroupNormArgs) -> Launch:
    """The definition in plain torch."""
    groups, eps, silu = args.groups, args.eps, args.silu

    def launch(tensors: Sequence[Tensor | None]) -> None:
        x, out, weight, bias, scale, shift, residual, summed = tensors
        assert x is not None and out is not None
        kind = torch.promote_types(x.dtype, torch.float32)

        def wide(tensor: Tensor) -> Tensor:
            return tensor.to(kind)

        def per_channel(tensor: Tensor) -> Tensor:
            return wide(tensor).view(*tensor.shape, *[1] * (x.ndim - tensor.ndim))

        h = wide(x)
        if residual is not None:
            h = h + per_channel(residual)
        # F.group_norm refuses groups of one element, which are their bias.
        y = torch.group_norm(
            h,
            groups,
            None if weight is None else wide(weight),
            None if bias is None else wide(bias),
            eps,
        )
        if scale is not None:
            y = y * (1.0 + per_channel(scale))
        if shift is not None:
            y = y + per_channel(shift)
        if summed is not None:
            summed.copy_(h)
        out.copy_(F.silu(y) if silu else y)

    return launch


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *,
    silu: bool = False, scale: Tensor | None = None, shift: Tensor | None = None,
    residual: Tensor | None = None, out: Tensor | None = None, backend: str = "auto",
) -> Tensor:  # fmt: skip
    """silu(GroupNorm(x + residual) (1 + scale) + shift); shapes in GroupNormArgs.

    The result is `out`, or else new and dense, in the memory format and dtype of x. There is no
    derivative.
    Raises ValueError or TypeError on arguments that do not go together.
    """
    out = torch.empty_like(x) if out is None else out
    _call((x, out, weight, bias, scale, shift, residual, None), groups, eps, silu, backend)
    return out


def add_group_norm(
    x: Tensor, residual: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *, silu: bool = False, scale: Tensor | None = None, shift: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(group_norm of x + residual, x + residual): a residual stream and its next layer's input; the arguments
    are those of `group_norm`."""
    out, summed = torch.empty_like(x), torch.empty_like(x)
    tensors = (x, out, weight, bias, scale, shift, residual, summed)
    _call(tensors, groups, eps, silu, backend)
    return out, summed


def _call(
    tensors: tuple[Tensor | None, ...], groups: int, eps: float, silu: bool, backend: str
) -> None:
    make = partial(GroupNormArgs, *tensors, groups, eps, silu)  # type: ignore[arg-type, call-arg]
    launches.call("group_norm", backend, tensors, (groups, eps, silu), make)


def plain(device: torch.device) -> GroupNormArgs:
    """One group of one channel."""
    x = torch.zeros(1, 1, 2, 2, device=device)
    return GroupNormArgs(x, torch.empty_like(x))


SCHEMA = (
    "group_norm(Tensor x, int groups, Tensor? weight=None, Tensor? bias=None, float eps=1e-05, *, "
    "bool silu=False, Tensor? scale=None, Tensor? shift=None, Tensor? residual=None) -> Tensor"
)
ADD_SCHEMA = (
    "add_group_norm(Tensor x, Tensor residual, int groups, Tensor? weight=None, Tensor? bias=None, "
    "float eps=1e-05, *, bool silu=False, Tensor? scale=None, Tensor? shift=None) -> (Tensor, Tensor)"
)


def _fake(x: Tensor, groups: int, *rest: object, **others: object) -> Tensor:
    check(x, groups)
    return torch.empty_like(x)


def _fake_add(
    x: Tensor, residual: Tensor, groups: int, *rest: object, **others: object
) -> tuple[Tensor, Tensor]:
    check(x, groups)
    return torch.empty_like(x), torch.empty_like(x)


OP = Op(
    bind=bind,
    plain=plain,
    operators=(
        Operator(SCHEMA, group_norm, _fake),
        Operator(ADD_SCHEMA, add_group_norm, _fake_add),
    ),
)
