"""The latent z of networks that take one: fresh for every sample and call, made from the sample's seed
and its row where they lie, so that a captured step makes it, too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..ops.noise import NoiseArgs
from ..ops.philox import LATENT
from ..ops.step import StepArgs


class Latents:
    """Buffers of z, [samples, size] and [entries, size]; the entries of a sample share its z.

    args   what the op `noise` draws into, the samples' own
    of     [entries] int64, the sample of each entry of the call
    given  [entries, size] in the network's dtype: what it is called with
    """

    def __init__(self, step: StepArgs, size: int, entries: int, dtype: torch.dtype) -> None:
        own = step.seed.new_zeros(len(step.seed), size, dtype=torch.float32)
        self.args = NoiseArgs(own, step.seed, step.row, step.table.index)
        self.of = step.seed.new_zeros(entries)
        self._picked = own.new_zeros(entries, size)
        self.given = self._picked.to(dtype)

    def tensors(self) -> list[Tensor]:
        """Every tensor that no one else counts."""
        given = [] if self.given is self._picked else [self.given]
        return [self.args.out, self.of, self._picked, *given]

    def filler(self, draw: Callable[..., None]) -> Callable[[int], None]:
        """What makes z for the first `count` entries of the call that the samples' rows are about to make.

        draw  the op `noise`, bound to args
        """

        def fill(count: int) -> None:
            draw(0, LATENT)
            torch.index_select(self.args.out, 0, self.of[:count], out=self._picked[:count])
            if self.given is not self._picked:
                self.given[:count].copy_(self._picked[:count])

        return fill
