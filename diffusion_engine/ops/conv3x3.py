"""The op `conv3x3`: a 3x3 convolution of stride 1 with zeros around the image. This file defines it.

    out[b, k, i, j] = bias[k] + residual[b, k, i, j]
                      + sum over c, u, v of weight[k, c, u, v] x[b, c, i + u - 1, j + v - 1]

The kernel is Winograd's algorithm in the form of Lavin and Gray 2016, section 4: tiles of M x M
pixels, M = 2 or 4, are A^T [(G g G^T) (B^T d B)] A of windows d of (M + 2)^2 pixels and filters g, with
the products summed over the input channels before A^T: (M + 2)^2 multiplications where the definition
has 9 M^2, 2.25 and 4 times fewer. `pack` transforms a weight once.

Points: 0, 1, -1 and infinity for M = 2. For M = 4 the customary 0, 1, -1, 2, -2 and infinity have several
times the error. Of pairs p, q the points 0, +-11/16, +-11/8 and infinity, whose coefficients are exact in
float32, were among the best. Products are summed 16 channels at a time, 32 from 128 channels on and 64 from
256 on, and those sums are added: one chain of all channels would have 1.5 to 3 times the error. Medians of
40 random cases each, of the largest value, and the largest share of what is allowed, which is twice the
error of the plain float32 sum (testing/plain.py) and a rounding unit:

    channels       16    32    48    64    96    128   256   512
    plain sum      3.7   5.0   6.5   7.9   9.0   11    15    20    1e-7
    M = 4          5.1   6.1   5.1   5.9   6.2   7.7   9.7   8.6   1e-7
    M = 2          1.8   1.7   1.8   1.8   1.8   2.1   2.8   2.7   1e-7
    M = 4, share   1.32  1.13  0.81  0.71  0.56  0.75  0.60  0.41
    M = 2, share   0.32  0.25  0.30  0.21  0.14  0.15  0.17  0.09

`tiles` is the rule made from that: of 250 cases with 64 channels the largest share was 0.90, of 150 with 48
1.21.

NaN and infinity spread over the tiles whose windows hold them: up to M + 1 pixels away.
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

PANEL = 16  # output channels next to each other in a packed weight, as in csrc/cpu/winograd.h
P, Q = 11 / 16, 11 / 8
CHANNELS = 64  # from which tiles of 4 x 4 meet the bound on errors

Launch = Callable[[Sequence[Tensor | None]], None]


@dataclass(frozen=True, eq=False)
class Conv3x3Args:
    """The tensors of a convolution, checked.

    x         [B, C, H, W] float32 (float64 on the reference only)
    weight    [K, C, 3, 3], which only the reference reads
    packed    pack(weight), which only the kernel reads
    bias      [K]
    residual  [B, K, H, W]
    out       [B, K, H, W]; written. May be the residual.

    Raises ValueError on a wrong shape or device and TypeError on a wrong dtype.
    """

    x: Tensor
    weight: Tensor
    packed: Tensor
    bias: Tensor | None
    residual: Tensor | None
    out: Tensor

    def __post_init__(self) -> None:
        check(self.x, self.weight, self.packed)
        (batch, _, *pixels), channels = self.x.shape, self.weight.shape[0]
        image = (batch, channels, *pixels)
        shapes = {"bias": (channels,), "residual": image, "out": image}
        for name, shape in shapes.items():
            tensor = getattr(self, name)
            if tensor is not None and tensor.shape != shape:
                raise ValueError(
                    f"conv3x3 of x {list(self.x.shape)} and weight {list(self.weight.shape)} needs "
                    f"{name} {list(shape)}, got {list(tensor.shape)}"
                )
        for name, tensor in vars(self).items():
            if tensor is None:
                continue
            if tensor.dtype != self.x.dtype and name != "packed":
                raise TypeError(
                    f"conv3x3: x is {self.x.dtype}, {name} {tensor.dtype}; cast them to one"
                )
            if tensor.device != self.x.device:
                raise ValueError(
                    f"conv3x3: x is on {self.x.device}, {name} on {tensor.device}; move one"
                )
        check_written("conv3x3", out=self.out)

    @property
    def tile(self) -> int:
        return tile_of(self.packed)

    def tensors(self) -> tuple[Tensor | None, ...]:
        """What a launch takes."""
        return self.x, self.weight, self.packed, self.bias, self.residual, self.out


def check(x: Tensor, weight: Tensor, packed: Tensor) -> None:
    """Raises ValueError or TypeError where the three do not go together."""
    if x.ndim != 4 or x.numel() == 0:
        raise ValueError(f"conv3x3 needs x [B, C, H, W] with elements, got {list(x.shape)}")
    if weight.ndim != 4 or weight.shape[1:] != (x.shape[1], 3, 3) or weight.shape[0] < 1:
        raise ValueError(
            f"conv3x3 of x {list(x.shape)} needs weight [K, {x.shape[1]}, 3, 3], got {list(weight.shape)}"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"conv3x3: x is {x.dtype}; cast it to float32")
    shapes = [packed_shape(weight, tile) for tile in (2, 4)]
    if tuple(packed.shape) not in shapes or packed.dtype != torch.float32:
        raise ValueError(
            f"conv3x3 of weight {list(weight.shape)} needs packed {list(shapes[0])} or "
            f"{list(shapes[1])} in float32, got {list(packed.shape)} in {packed.dtype}; make it with pack"
        )


def packed_shape(weight: Tensor, tile: int) -> tuple[int, int, int, int]:
    """[points, panels of output channels, C, PANEL]."""
    return (tile + 2) ** 2, -(-weight.shape[0] // PANEL), weight.shape[1], PANEL


def tile_of(packed: Tensor) -> int:
    return 2 if packed.shape[0] == 16 else 4


def tiles(channels: int) -> tuple[int, ...]:
    """The tiles that keep the error of a layer with so many input channels below twice the plain sum's, the
    one with fewest multiplications first."""
    return (2,) if channels < CHANNELS else (4, 2)


def pack(weight: Tensor, tile: int) -> Tensor:
    """The transformed weight G g G^T, float32, in the order in which the kernel reads it.

    weight  [K, C, 3, 3] float32
    tile    pixels along an edge of a tile, 2 or 4; the result has 16/9 or 4 times the elements of weight

    Raises ValueError on another tile.
    """
    if tile not in (2, 4):
        raise ValueError(f"tile={tile}: pack transforms weights for tiles of 2 or 4 pixels")
    g = _transform(tile)
    both = torch.kron(g, g).T.to(weight.device)  # [9, points]
    points, panels, channels, _ = packed_shape(weight, tile)
    packed = weight.new_zeros((points, panels, channels, PANEL), dtype=torch.float32)
    for panel in range(panels):  # one at a time: in float64 the whole would take 8 times the weight
        part = weight.detach()[panel * PANEL : (panel + 1) * PANEL].double()
        made = (part.reshape(-1, 9) @ both).view(-1, channels, points)
        packed[:, panel, :, : part.shape[0]] = made.permute(2, 1, 0)
    return packed


def _transform(tile: int) -> Tensor:
    """G [tile + 2, 3]: row a is (1, a, a^2) over the product of a's distances to the other points."""
    if tile == 2:
        rows = [(1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0)]
        return torch.tensor(rows, dtype=torch.float64)
    points = torch.tensor((0.0, P, -P, Q, -Q), dtype=torch.float64)
    distances = (points[:, None] - points).fill_diagonal_(1.0).prod(dim=1)
    finite = points[:, None] ** torch.arange(3) / distances[:, None]
    return torch.cat((finite, torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)))


def bind(args: Conv3x3Args) -> Launch:
    """The definition in plain torch."""

    def launch(tensors: Sequence[Tensor | None]) -> None:
        x, weight, _, bias, residual, out = tensors
        assert x is not None and weight is not None and out is not None
        y = F.conv2d(x, weight, bias, padding=1)
        out.copy_(y if residual is None else y + residual)

    return launch


def conv3x3(
    x: Tensor, weight: Tensor, packed: Tensor, bias: Tensor | None = None,
    residual: Tensor | None = None, *, backend: str = "auto",
) -> Tensor:  # fmt: skip
    """conv2d(x, weight, bias, padding=1) + residual; shapes in Conv3x3Args.

    packed  pack(weight, tile): the tile decides the bits of the result

    The result is new and dense, in the memory format of x. There is no derivative.
    Raises ValueError or TypeError on arguments that do not go together.
    """
    out = _like(x, weight.shape[0])
    tensors = (x, weight, packed, bias, residual, out)
    launches.call("conv3x3", backend, tensors, (), partial(Conv3x3Args, *tensors))
    return out


def _like(x: Tensor, channels: int) -> Tensor:
    """An uninitialised [B, channels, H, W] in the memory format of x."""
    last = x.ndim == 4 and x.stride(1) == 1
    form = torch.channels_last if last else torch.contiguous_format
    shape = (*x.shape[:1], channels, *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)


def plain(device: torch.device) -> Conv3x3Args:
    """One channel to one."""
    x, weight = torch.zeros(1, 1, 2, 2, device=device), torch.zeros(1, 1, 3, 3, device=device)
    return Conv3x3Args(x, weight, pack(weight, 2), None, None, torch.empty_like(x))


SCHEMA = (
    "conv3x3(Tensor x, Tensor weight, Tensor packed, Tensor? bias=None, "
    "Tensor? residual=None) -> Tensor"
)


def _fake(x: Tensor, weight: Tensor, packed: Tensor, *rest: object) -> Tensor:
    check(x, weight, packed)
    return _like(x, weight.shape[0])


OP = Op(bind=bind, plain=plain, operators=(Operator(SCHEMA, conv3x3, _fake),))
