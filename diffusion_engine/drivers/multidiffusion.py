"""MultiDiffusion (Bar-Tal et al. 2023, equation 5): a canvas larger than what a network was trained on.

Windows F_i of the network's size lie over the canvas J. A step asks of every pixel to be as near as can be to
what each window makes of it,

    J' = argmin_J sum_i |F_i(J) - Phi(F_i(J_t))|^2 = the mean over the windows that hold a pixel,

and as a row is affine in x, the estimate of x0 and noise, and a pixel's x and noise are the canvas's own, it
is the mean of the windows' estimates. So the canvas has a network: a call of it is one of all windows, whose
outputs are averaged where they overlap, and any solver's table runs on it, multistep and stochastic ones too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import checks
from ..networks.network import ScoreNetwork
from ..networks.outputs import tensors
from ..networks.wrapper import Wrapper
from .base import Driver

CANVAS = "give the canvas's pixels, one number for each of the network's axes, as (32, 128)"
STRIDE = (
    "give the pixels from window to window, 1 or more, one number or one for each axis; or None"
)
WINDOWS = 65536
AT_ONCE = "give how many windows a call of the module takes, 1 or more, or None for all"

Window = tuple[slice, ...]


@dataclass(frozen=True)
class MultiDiffusion(Driver):
    """Samples of the size of a canvas, by windows of the network's size.

    canvas   pixels of each axis, the network's or more
    stride   pixels from window to window, one number or one for each axis, at most the network's; None is
             half of those. The last window of an axis ends where the canvas does
    at_once  windows that one call of the module takes, where memory has no room for all

    A sample is [C, *canvas], and its normals are the canvas's: windows have the same where they overlap. Each
    follows the whole condition of its sample.
    """

    name: ClassVar[str] = "multidiffusion"
    source: ClassVar[str] = "Bar-Tal et al. 2023 (MultiDiffusion), equation 5"
    served: ClassVar[bool] = False
    canvas: Sequence[int] = ()
    stride: int | Sequence[int] | None = None
    at_once: int | None = None

    def __post_init__(self) -> None:
        sizes = checks.entries("canvas", self.canvas, CANVAS)
        if not sizes:
            raise ValueError(f"canvas={checks.said(self.canvas)}: {CANVAS}")
        made = tuple(checks.whole("canvas", size, 1, CANVAS) for size in sizes)
        object.__setattr__(self, "canvas", made)
        stride = checks.plain(self.stride)
        if stride is not None and not isinstance(stride, int):
            listed = checks.entries("stride", stride, STRIDE)
            object.__setattr__(
                self, "stride", tuple(checks.whole("stride", s, 1, STRIDE) for s in listed)
            )
        else:
            checks.settle(self, "stride", checks.whole, 1, STRIDE)
        checks.settle(self, "at_once", checks.whole, 1, AT_ONCE)

    def network(self, network: ScoreNetwork) -> ScoreNetwork:
        size = network.shape[1:]
        stride = self.stride
        if stride is None:
            stride = tuple(max(1, n // 2) for n in size)
        elif isinstance(stride, int):
            stride = (stride,) * len(size)
        if objection := self._unsuited(network, stride):
            raise ValueError(f"driver {self.name!r} cannot run this: {objection}")
        canvas = tuple(self.canvas)
        count = math.prod(
            -(-max(0, n - w) // s) + 1 for n, w, s in zip(canvas, size, stride, strict=True)
        )
        if count > WINDOWS:
            raise ValueError(
                f"a canvas of {list(canvas)} at stride {list(stride)} takes {count} windows of {list(size)}; "
                f"{WINDOWS} at most: give a smaller canvas or a larger stride"
            )
        windows = list(windows_of(canvas, size, stride))
        module = Windows(network.module, windows, canvas, self.at_once)
        return network.with_module(module, shape=(network.shape[0], *canvas))

    def _unsuited(self, network: ScoreNetwork, stride: Sequence[int]) -> str | None:
        size = network.shape[1:]
        if not len(size) == len(self.canvas) == len(stride):
            return (
                f"the network's samples have {len(size)} axes of pixels, the canvas {len(self.canvas)} and "
                f"the stride {len(stride)}; give one number for each axis"
            )
        if any(wide < own for wide, own in zip(self.canvas, size, strict=True)):
            return f"the canvas {list(self.canvas)} is smaller than the network's {list(size)}; give more"
        if any(step > own for step, own in zip(stride, size, strict=True)):
            return f"stride {list(stride)} leaves gaps between windows of {list(size)}; give less"
        if network.parameterisation.latent:
            return "the network draws a latent for each call, and windows have none in common"
        return None


def windows_of(
    canvas: Sequence[int], size: Sequence[int], stride: Sequence[int]
) -> Iterator[Window]:
    """Where windows of a size lie on a canvas, in order; together they hold every pixel."""
    starts = (
        sorted({*range(0, wide - own, step), wide - own})
        for wide, own, step in zip(canvas, size, stride, strict=True)
    )
    for at in product(*starts):
        yield tuple(slice(low, low + own) for low, own in zip(at, size, strict=True))


class Windows(Wrapper):
    """A module of the canvas: the mean of what a module of its windows returns for those that hold a pixel.

    windows  of the canvas, in the order in which they are summed
    at_once  windows in a call of the module, for each sample; None for all
    """

    counts: Tensor

    def __init__(
        self, module: Any, windows: Sequence[Window], canvas: tuple[int, ...], at_once: int | None
    ) -> None:
        super().__init__(module)
        self.windows: list[Any] = [(..., *window) for window in windows]
        self.canvas, self.at_once = canvas, at_once or len(windows)
        # How many windows hold each pixel; whole numbers, which no cast to another dtype changes.
        counts = torch.zeros(canvas, dtype=torch.int64)
        for window in windows:
            counts[window] += 1
        self.register_buffer("counts", counts, persistent=False)

    def forward(
        self, x: Tensor, label: Tensor, *given: Tensor, **named: Tensor
    ) -> tuple[Tensor, ...]:
        totals: list[Tensor] = []
        dtypes: list[torch.dtype] = []
        for first in range(0, len(self.windows), self.at_once):
            here = self.windows[first : first + self.at_once]
            outs = tensors(self._called(here, x, label, *given, **named))
            if not totals:
                # In float64, so that equal outputs of windows have themselves for a mean.
                totals = [
                    x.new_zeros(len(x), out.shape[1], *self.canvas, dtype=torch.float64)
                    for out in outs
                ]
                dtypes = [out.dtype for out in outs]
            for total, out in zip(totals, outs, strict=True):
                for j, window in enumerate(here):
                    total[window] += out[j * len(x) : (j + 1) * len(x)]
        if self.counts.device != x.device:  # a function has no weights to move along with
            self.counts = self.counts.to(x.device)
        return tuple(
            (total / self.counts).to(dtype) for total, dtype in zip(totals, dtypes, strict=True)
        )

    def _called(self, windows: Sequence[Any], *given: Tensor, **named: Tensor) -> Any:
        """The module's outputs of some windows of every entry, window after window."""
        x, *others = given
        cut = torch.cat([x[window] for window in windows])

        def each(tensor: Tensor) -> Tensor:
            return torch.cat([tensor] * len(windows))

        return self.module(cut, *map(each, others), **{name: each(t) for name, t in named.items()})
