r"""Rescaled classifier-free guidance (Lin et al. 2024, "Common diffusion noise schedules and sample steps are
flawed", equations 15 and 16; arXiv 2305.08891): large scales widen the output, and with it the contrast.

    o     = u + s (c - u)
    o_r   = o std(c) / std(o)
    out   = phi o_r + (1 - phi) o

with c and u the network's outputs with the condition and without, and the standard deviations over all
elements of a sample. So out = f o, and the row's weights are multiplied by f = phi std(c) / std(o) + 1 - phi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .. import checks
from .base import Guided, Guider, share


@dataclass(frozen=True)
class Rescale(Guider):
    """phi  how far the standard deviation of the conditional output is restored: 0 not at all, 1 wholly"""

    name: ClassVar[str] = "rescale"
    source: ClassVar[str] = "Lin et al. 2024, arXiv 2305.08891, equations 15 and 16"

    phi: float = 0.7

    def __post_init__(self) -> None:
        wanted = "the share of the rescaled output is from 0 to 1, such as 0.7"
        checks.settle(self, "phi", share, wanted)

    def numbers(self) -> tuple[float, ...]:
        return (self.phi,)

    @staticmethod
    def guide(at: Guided) -> None:
        s, phi = at.scale, at.option(0)
        c, u, cc, uu, cu = at.outputs()
        n = at.elements
        # n var(c), and n var(o) of o = s c + (1 - s) u
        own = cc - c * c / n
        rest = 1.0 - s
        wide = s * s * own + rest * rest * (uu - u * u / n) + 2.0 * (s * rest) * (cu - c * u / n)
        factor = phi * torch.sqrt(own / wide) + (1.0 - phi)
        factor = torch.where(wide > 0.0, factor, 1.0)  # a constant output has nothing to rescale
        at.weigh(s * factor, rest * factor)
