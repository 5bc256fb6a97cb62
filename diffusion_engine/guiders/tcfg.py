r"""Tangential damping classifier-free guidance (Kwon et al. 2025, "TCFG: tangential damping classifier-free
guidance", section 4; arXiv 2503.18137): of the unconditional output only the part along the direction that it
shares with the conditional one is kept.

    [c; u] = U S V^T             the singular value decomposition of the two outputs as rows
    u'     = v_1 v_1^T u         v_1 the first right singular vector
    out    = u' + s (c - u')

With the Gram matrix G = [c c, c u; c u, u u] and its first eigenvector w = (cos t, sin t),

    tan 2t = 2 c.u / (c.c - u.u),    v_1 = (w_1 c + w_2 u) / sqrt(l_1),    v_1^T u = sqrt(l_1) w_2,

so that u' = w_1 w_2 c + w_2^2 u, a combination of the two outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import Guided, Guider


@dataclass(frozen=True)
class Tangential(Guider):
    """Without options."""

    name: ClassVar[str] = "tcfg"
    source: ClassVar[str] = "Kwon et al. 2025, arXiv 2503.18137, section 4"

    @staticmethod
    def guide(at: Guided) -> None:
        s = at.scale
        _, _, cc, uu, cu = at.outputs()
        apart = cc - uu
        size = torch.sqrt(apart * apart + 4.0 * (cu * cu))  # l_1 - l_2
        # w_1 w_2 = sin(2t) / 2 and w_2^2 = (1 - cos(2t)) / 2; without a first direction u stays
        both = torch.where(size > 0.0, cu / size, 0.0)
        own = torch.where(size > 0.0, 0.5 * (1.0 - apart / size), 1.0)
        at.weigh(s + (1.0 - s) * both, (1.0 - s) * own)
