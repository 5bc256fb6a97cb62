"""What the closed forms share: as a ScoreNetwork they are told an angle, which says alpha and sigma."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.network import ScoreNetwork
from ..processes import GaussianProcess, Point


def angle(at: Point) -> float:
    """arctan(sigma / alpha): finite at clean data and at pure noise."""
    if isinstance(at, Point):
        return math.atan2(at.sigma, at.alpha)
    return torch.atan2(at.sigma, at.alpha)


def unit(at: Point) -> float:
    """1 / sqrt(alpha^2 + sigma^2): the scale in which the angle says both."""
    return 1.0 / (at.alpha**2 + at.sigma**2) ** 0.5


class Data:
    """Data of independent elements; subclasses know E[x0 | x] of one."""

    def denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x = alpha x0 + sigma eps]; alpha and sigma broadcast against x."""
        raise NotImplementedError

    def eps(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[eps | x], which is -sigma times the score."""
        return (x - alpha * self.denoised(x, alpha, sigma)) / sigma

    def network(
        self, process: GaussianProcess, shape: tuple[int, ...] = (1,), prediction: str = "x0", **options: Any
    ) -> ScoreNetwork:  # fmt: skip
        """The perfect network of this data on a process, for any mix of times in a batch.

        prediction  "x0" or "eps"; it reckons in float64 and returns its input's type
        options     further ones of ScoreNetwork
        Raises ValueError on another prediction.
        """
        if prediction not in ("x0", "eps"):
            raise ValueError(f"prediction={prediction!r}: a closed form predicts 'x0' or 'eps'")
        known: dict[str, Any] = {
            "prediction": prediction,
            "label": angle,
            "label_dtype": torch.float64,
            "scale": unit,
            "name": type(self).__name__.lower(),
        }
        return ScoreNetwork(Exact(self, prediction), process, shape, **{**known, **options})


class Exact(nn.Module):
    """A closed form as a module of x / sqrt(alpha^2 + sigma^2) and the angle."""

    def __init__(self, data: Data, prediction: str) -> None:
        super().__init__()
        self.data, self.prediction = data, prediction

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        theta = label.double().view(-1, *[1] * (x.ndim - 1))
        rule = self.data.denoised if self.prediction == "x0" else self.data.eps
        return rule(x.double(), theta.cos(), theta.sin()).to(x.dtype)
