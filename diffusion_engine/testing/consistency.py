"""The consistency function of Gaussian data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.network import ScoreNetwork
from ..networks.prediction import Consistency
from ..processes import EDM


@dataclass(frozen=True)
class ConsistencyFunction:
    """f(x, sigma) = mean + (x - mean) sqrt((std^2 + sigma_min^2) / (std^2 + sigma^2)), f(x, sigma_min) = x.

    It maps N(mean, std^2 + sigma^2) at every sigma to N(mean, std^2 + sigma_min^2).
    """

    mean: float = 0.3
    std: float = 0.5
    sigma_min: float = 0.002

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """sigma broadcasts against x."""
        variance = self.std**2
        shrink = ((variance + self.sigma_min**2) / (variance + sigma**2)).sqrt()
        return self.mean + (x - self.mean) * shrink

    def network(
        self, shape: tuple[int, ...] = (1,), sigma_max: float = 80.0, **options: Any
    ) -> ScoreNetwork:
        """It as a trained consistency model comes: an inner network behind prediction.Consistency, for noise
        up to sigma_max; options of ScoreNetwork."""
        rule = Consistency(sigma_min=self.sigma_min)
        known: dict[str, Any] = {
            "prediction": rule,
            "label": rule.c_noise,
            "label_dtype": torch.float64,
            "name": "consistency",
        }
        process = EDM(t_min=self.sigma_min, t_max=sigma_max)
        return ScoreNetwork(Inner(self, rule), process, shape, **{**known, **options})


class Inner(nn.Module):
    """F of f = c_skip x + c_out F(c_in x, 250 log sigma)."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], rule: Consistency) -> None:
        super().__init__()
        self.function, self.rule = function, rule

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        sigma = (label.double() / 250.0).exp().view(-1, *[1] * (x.ndim - 1))
        sd, gap = self.rule.sigma_data, sigma - self.rule.sigma_min
        state = x.double() * (sigma**2 + sd**2).sqrt()
        skip, out = sd**2 / (gap**2 + sd**2), gap * sd / (sigma**2 + sd**2).sqrt()
        # At sigma_min itself f is x, whatever F says.
        safe = torch.where(out == 0.0, torch.ones_like(out), out)
        return ((self.function(state, sigma) - skip * state) / safe).to(x.dtype)
