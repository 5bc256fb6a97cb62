r"""Dynamic thresholding (Saharia et al. 2022, "Photorealistic text-to-image diffusion models with deep
language understanding", section 2.3; arXiv 2205.11487): where guidance drives the estimate of x0 out of the
range of images, it is brought back by a bound of the sample's own.

    b = the q-quantile of |D| over all elements of a sample
    b = min(max(b, 1), most)
    D = clip(D, -b, b) / b

with D the estimate of x0, guided or not. With most = 1 it is the static clip to [-1, 1]. For pixels in
[-1, 1]; latents have no such range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan import Plan
from ..plan.guidance import classifier_free
from .base import Guided, Guider, Interval, share


@dataclass(frozen=True)
class DynamicThreshold(Guider):
    """q     share of the elements that the bound lies above
    most  the largest bound, 1 or more; None for none
    """

    name: ClassVar[str] = "threshold"
    source: ClassVar[str] = "Saharia et al. 2022, arXiv 2205.11487, section 2.3"
    scaled: ClassVar[bool] = False

    q: float = 0.995
    most: float | None = None

    def __post_init__(self) -> None:
        checks.settle(
            self, "q", share, "the quantile of the magnitudes is from 0 to 1, such as 0.995"
        )
        checks.settle(self, "most", checks.number, "the largest bound is 1 or more, or None")
        if self.most is not None and self.most < 1.0:
            raise ValueError(f"most={self.most:g}: the largest bound is 1 or more, or None")

    def objection(self, network: Parameterisation) -> str | None:
        return None

    def numbers(self) -> tuple[float, ...]:
        return self.q, self.most or 0.0

    def plan(self, plan: Plan, scale: float, interval: Interval) -> Plan:
        made = classifier_free(plan, scale, interval)
        rows = [
            replace(self.row(row, scale), clip=None) if any(row.q) else row for row in made.rows
        ]
        return made.replace_rows(rows)

    @staticmethod
    def guide(at: Guided) -> None:
        q, most = at.option(0), at.option(1)
        by = torch.clamp(at.quantile(q), min=1.0)
        at.bound(torch.where(most > 0.0, torch.minimum(by, most), by))
