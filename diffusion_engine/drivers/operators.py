"""What a measurement is made by: y = A x0 + sigma_y n with a linear A, given as two functions.

A is known by what it does to images, `apply`, and by its transpose, `adjoint`: <A x, y> = <x, A^T y> for all
x and y. No method needs more of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..ops import philox
from .sums import dots

PADDINGS = ("circular", "reflect")
ROUNDING = 1e-4  # of a dot product of float32 images against their lengths
BOX = "the hole is (top, left, height, width), whole numbers that lie in the image"


@dataclass(frozen=True, eq=False)
class Operator:
    """A linear A and its transpose.

    apply    x [N, C, *pixel] -> A x [N, *measured]
    adjoint  y [N, *measured] -> A^T y [N, C, *pixel]
    name     in errors

    Both take and return float32 or float64 on the device of what they are given, and treat the samples of a
    batch one by one. They are checked by dot products where a driver is given a network.
    """

    apply: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    name: str = "operator"

    def __post_init__(self) -> None:
        for name in ("apply", "adjoint"):
            checks.function(name, getattr(self, name), "give a function of a tensor")

    def residual(self, y: Tensor, x: Tensor) -> Tensor:
        """y - A x."""
        return y - self.apply(x)

    def measured(self, shape: Sequence[int], device: torch.device | str = "cpu") -> tuple[int, ...]:
        """The shape of the measurement of a sample of a shape.

        Raises ValueError where the functions do not take it, or the adjoint is not the transpose: the two
        dot products are those of standard normals.
        """
        x = normals(shape, 0, device)
        image = self._called("apply", x)
        y = normals(image.shape[1:], 1, device)
        back = self._called("adjoint", y)
        if back.shape != x.shape:
            raise ValueError(
                f"the adjoint of {self.name!r} makes {list(back.shape)} of {list(y.shape)}, and apply made "
                f"that of {list(x.shape)}; give the transpose of apply"
            )
        ahead, behind = dots(image, y), dots(x, back)
        size = (dots(image, image) * dots(y, y) + dots(x, x) * dots(back, back)).sqrt()
        if bool(((ahead - behind).abs() > ROUNDING * size).any()):
            raise ValueError(
                f"the adjoint of {self.name!r} is not the transpose of apply: for normals x and y "
                f"<A x, y> = {float(ahead[0]):.6g} and <x, A^T y> = {float(behind[0]):.6g}; give the linear "
                "A, without an offset, and its transpose"
            )
        return tuple(image.shape[1:])

    def _called(self, name: str, given: Tensor) -> Tensor:
        """What a function makes of a batch, if it is a batch as long."""
        try:
            made = getattr(self, name)(given)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ValueError(
                f"{name} of {self.name!r} does not take {list(given.shape)} ({reason}); it takes a batch of "
                "samples of the network's shape"
            ) from error
        if not isinstance(made, Tensor) or made.ndim < 1 or len(made) != len(given):
            raise ValueError(
                f"{name} of {self.name!r} makes {checks.said(made)} of {list(given.shape)}; it makes one "
                "entry for each of a batch"
            )
        return made


def normals(shape: Sequence[int], key: int, device: torch.device | str) -> Tensor:
    """Two samples of a shape, the same ones everywhere."""
    seeds, count = torch.tensor([0, 1]), math.prod(shape)
    drawn = philox.normals(seeds, torch.full_like(seeds, key), 0, count)
    return drawn.reshape(2, *shape).float().to(device)


class Masked(Operator):
    """The elements outside a hole; a measurement holds anything within, which is not read."""

    def residual(self, y: Tensor, x: Tensor) -> Tensor:
        return self.apply(y - x)


def inpainting(box: Sequence[int] | None = None, mask: Any = None) -> Operator:
    """All but a hole: measurements have the images' own shape.

    box   the hole (top, left, height, width), in all channels
    mask  1 where the hole is, as in `sample`: [*pixel] or [C, *pixel], a tensor or nested lists
    """
    if (box is None) == (mask is None):
        raise ValueError("inpainting takes box=(top, left, height, width) or mask=, one of them")
    if box is not None:
        sizes = checks.entries("box", box, BOX)
        if len(sizes) != 4 or not all(type(n) is int and n >= 0 for n in sizes):
            raise ValueError(f"box={checks.said(box)}: {BOX}")
        outside: Callable[[Tensor], Tensor] = partial(_outside_box, sizes)
    else:
        outside = partial(_outside_mask, _hole(mask))
    return Masked(outside, outside, "inpainting")


def _outside_box(box: Sequence[int], x: Tensor) -> Tensor:
    top, left, height, width = box
    if x.ndim != 4 or top + height > x.shape[2] or left + width > x.shape[3]:
        raise ValueError(f"box={list(box)}: {BOX}, and this one is {list(x.shape[2:])}")
    made = x.clone()
    made[:, :, top : top + height, left : left + width] = 0.0
    return made


def _outside_mask(hole: Tensor, x: Tensor) -> Tensor:
    return x.masked_fill(hole.to(x.device), 0.0)


def _hole(mask: Any) -> Tensor:
    """A mask as booleans."""
    try:
        return torch.as_tensor(mask) > 0.5
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"mask={checks.said(mask)}: give [*pixel], 1 where the hole is") from error


def super_resolution(factor: int = 2) -> Operator:
    """The means of blocks of factor x factor elements."""
    factor = checks.whole("factor", factor, 2, "a block has 2 elements a side or more")
    return Operator(partial(_pooled, factor), partial(_spread, factor), "super_resolution")


def _pooled(factor: int, x: Tensor) -> Tensor:
    if any(size % factor for size in x.shape[2:]) or x.ndim < 3:
        raise ValueError(f"factor={factor} does not divide the image {list(x.shape[2:])}")
    for dim in range(2, x.ndim):  # one sum after another: the order is the batch's in no way
        parts = [x.unflatten(dim, (-1, factor)).select(dim + 1, i) for i in range(factor)]
        x = sum(parts[1:], parts[0]) / factor
    return x


def _spread(factor: int, y: Tensor) -> Tensor:
    for dim in range(2, y.ndim):
        y = y.repeat_interleave(factor, dim) / factor
    return y


def deblurring(size: int = 5, sigma: float = 1.0, padding: str = "circular") -> Operator:
    """Means under a Gaussian window, over all pixel axes.

    size     of the window, an odd number of elements a side
    sigma    its standard deviation, in elements
    padding  how the image goes on beyond its edges: "circular" or "reflect", without the edge twice
    """
    size = checks.whole("size", size, 1, "a window has an odd number of elements a side")
    sigma = checks.number("sigma", sigma)
    if size % 2 == 0 or not sigma > 0.0:
        raise ValueError(f"size={size}, sigma={sigma:g}: give an odd size, and a sigma above 0")
    checks.one_of("padding", padding, PADDINGS)
    half = size // 2
    window = [math.exp(-0.5 * (j / sigma) ** 2) for j in range(-half, half + 1)]
    total = math.fsum(window)
    weights = tuple(w / total for w in window)
    ahead, back = (partial(f, weights, padding) for f in (_blurred, _blurred_back))
    return Operator(ahead, back, "deblurring")


def _blurred(weights: Sequence[float], padding: str, x: Tensor) -> Tensor:
    half = len(weights) // 2
    for dim in range(2, x.ndim):
        n = x.shape[dim]
        low, high = _edges(padding, n, half)
        wide = torch.cat(
            [x.index_select(dim, i.to(x.device)) for i in (low, torch.arange(n), high)], dim
        )
        parts = [w * wide.narrow(dim, j, n) for j, w in enumerate(weights)]
        x = sum(parts[1:], parts[0])
    return x


def _blurred_back(weights: Sequence[float], padding: str, y: Tensor) -> Tensor:
    half = len(weights) // 2
    for dim in range(2, y.ndim):
        n = y.shape[dim]
        wide = y.new_zeros([n + 2 * half if d == dim else s for d, s in enumerate(y.shape)])
        for j, w in enumerate(weights):
            wide.narrow(dim, j, n).add_(w * y)
        made = wide.narrow(dim, half, n).clone()
        for i, index in enumerate(_edges(padding, n, half)):  # each holds an element once
            start = 0 if i == 0 else n + half
            made.index_add_(dim, index.to(y.device), wide.narrow(dim, start, half))
        y = made
    return y


def _edges(padding: str, n: int, half: int) -> tuple[Tensor, Tensor]:
    """Which elements stand before the first of n, and after the last."""
    if half >= n:
        raise ValueError(f"a window of {2 * half + 1} elements is too wide for an image of {n}")
    if padding == "circular":
        return torch.arange(n - half, n), torch.arange(half)
    return torch.arange(1, half + 1).flip(0), torch.arange(n - 1 - half, n - 1).flip(0)


OPERATORS: dict[str, Callable[..., Operator]] = {
    "inpainting": inpainting,
    "super_resolution": super_resolution,
    "deblurring": deblurring,
}

GIVE = (
    f"give an Operator(apply, adjoint), a name of {', '.join(OPERATORS)}, or a mapping of its name and its "
    "options"
)


def operator(given: Operator | str | Mapping[str, Any]) -> Operator:
    """The operator of a name, or the object that is one.

    given  an Operator, a name of OPERATORS, or {"name": ..., its options}
    Raises ValueError where there is no such operator, or it has no such option.
    """
    if isinstance(given, Operator):
        return given
    options = {"name": given} if isinstance(given, str) else given
    if not isinstance(options, Mapping) or "name" not in options:
        raise ValueError(f"operator={checks.said(given)}: {GIVE}")
    options = dict(options)
    name = checks.one_of("operator", options.pop("name"), tuple(OPERATORS))
    checks.names(f"operator {name!r}", options, signature(OPERATORS[name]).parameters)
    return OPERATORS[name](**options)
