"""A classifier of clean images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import Batch
from .base import Given, Objective, Turn


class Classification(Objective):
    """Cross-entropy of a module's logits; its card says how many of the images held out it knows."""

    def __init__(self, given: Given) -> None:
        self.given = given

    def turns(self) -> list[Turn]:
        return [Turn("loss", self.given.module.parameters(), self._loss)]

    def _loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(self.given.module(batch.x0), batch.y)

    def after(self, steps: int, average: nn.Module) -> dict[str, Any]:
        if self.given.held_out is None:
            return {}
        images, labels = self.given.held_out
        with torch.no_grad():
            found = average((2.0 * images - 1.0).to(self.given.device)).argmax(dim=1).cpu()
        accuracy = round(float((found == labels).float().mean()), 4)
        return {"figures": {"accuracy": accuracy, "held_out": len(labels)}}
