"""A classifier of clean images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data import Batch
from .base import Given, Objective, Turn


class Classification(Objective):
    """Cross-entropy of a module's logits; its card says how many of the images held out it knows."""

    def __init__(self, given: Given) -> None:
        self.given, self.average = given, given.module

    def turns(self) -> list[Turn]:
        return [Turn("loss", self.given.module.parameters(), self._loss)]

    def _loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(self.given.module(batch.x0), batch.y)

    def before(self, step: int, average: nn.Module) -> None:
        self.average = average

    def after(self, steps: int) -> dict[str, Any]:
        images, labels = data.mnist("test")
        with torch.no_grad():
            found = self.average((2.0 * images - 1.0).to(self.given.device)).argmax(dim=1).cpu()
        accuracy = round(float((found == labels).float().mean()), 4)
        return {"figures": {"accuracy": accuracy, "held_out": len(labels)}}
