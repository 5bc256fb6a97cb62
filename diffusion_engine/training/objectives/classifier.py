"""A classifier of noised images, whose gradient guides a network."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...genie import natural
from ...processes.levels import Levels
from ...zoo.networks import network_of_card
from ..data import Batch
from .base import Given, Objective, Turn
from .denoising import noised
from .times import times

RATIOS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # sigma / alpha at which the card has an accuracy


class Classifier(Objective):
    """Mean of -log p(y | x_t, t) over t ~ U(t_min, t_max), x_t = alpha x0 + sigma eps (Dhariwal & Nichol
    2021, section 4), on the process of the card.

    prediction  of the networks that it is to guide: they decide the scale of its input and its label, which
                for EDM's "F" are not x and t
    """

    def __init__(self, given: Given, prediction: str = "eps") -> None:
        self.given = given
        card = given.recipe.card | {"prediction": prediction}
        self.guided = network_of_card(given.module, card, given.recipe.name)

    def turns(self) -> list[Turn]:
        return [Turn("loss", self.given.module.parameters(), self._loss)]

    def _loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        t = times(self.guided.process, len(batch.y), generator)
        return F.cross_entropy(self._logits(self.given.module, batch.x0, t, generator), batch.y)

    def _logits(
        self, module: nn.Module, x0: Tensor, t: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Of images with noise drawn on the CPU."""
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        x = noised(x0, Levels.of(self.guided.process, t.to(x0.device)), eps)
        _, scaled, label = natural.inputs(self.guided, x, t.to(x0.device))
        logits: Tensor = module(scaled, label)
        return logits

    def after(self, steps: int, average: nn.Module) -> dict[str, Any]:
        """The share of the held-out images that it takes for what they are, by sigma / alpha."""
        if self.given.held_out is None:
            return {}
        images, labels = self.given.held_out
        x0, generator = (2.0 * images - 1.0).to(self.given.device), torch.Generator().manual_seed(0)
        process, found = self.guided.process, {}
        for ratio in RATIOS:
            t = torch.full(
                (len(x0),), float(process.t_of_lam(-math.log(ratio))), dtype=torch.float64
            )
            with torch.no_grad():
                digits = self._logits(average, x0, t, generator).argmax(dim=1).cpu()
            found[f"{ratio:g}"] = round(float((digits == labels).float().mean()), 4)
        return {"figures": {"images": len(labels), "accuracy by sigma/alpha": found}}
