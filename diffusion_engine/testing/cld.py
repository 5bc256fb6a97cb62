"""The exact velocity score of CLD for mixtures of Gaussians, as networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..networks.network import ScoreNetwork
from ..networks.prediction import Velocity
from ..processes import CLD


class VelocityScore:
    """o(u, t) of data whose elements are independent draws from sum_k weights[k] N(means[k], stds[k]^2).

    (x, v) of component k is Gaussian with mean m_k a and covariance S + stds[k]^2 a a^T, where a are the
    weights of x0 and S the covariance given x0. float64 inside, on the host for what depends on t alone.
    """

    def __init__(
        self, process: CLD, prediction: Velocity, weights: Sequence[float], means: Sequence[float],
        stds: Sequence[float],
    ) -> None:  # fmt: skip
        self.process, self.prediction = process, prediction
        self.weights, self.means, self.stds = weights, means, stds

    def __call__(self, u: Tensor, label: Tensor) -> Tensor:
        x, v = u.double().chunk(2, dim=1)
        out = torch.empty_like(v)
        for t in label.unique().tolist():  # samples of one batch may be at different times
            here = label == t
            out[here] = self.output(x[here], v[here], float(t))
        return out.to(u.dtype)

    def score(self, x: Tensor, v: Tensor, t: float) -> Tensor:
        """d log p(x, v) / dv."""
        spread, a = self.process.covariance(t).matrix, np.array(self.process.mean(t))
        logs, scores = [], []
        for weight, mean, std in zip(self.weights, self.means, self.stds, strict=True):
            covariance = spread + std**2 * np.outer(a, a)
            (xx, xv), (_, vv) = np.linalg.inv(covariance).tolist()
            dx, dv = x - mean * a[0], v - mean * a[1]
            square = xx * dx**2 + 2.0 * xv * dx * dv + vv * dv**2
            logs.append(np.log(weight) - 0.5 * np.linalg.slogdet(covariance)[1] - 0.5 * square)
            scores.append(-(xv * dx + vv * dv))
        share = torch.stack(logs).softmax(dim=0)
        return (share * torch.stack(scores)).sum(dim=0)

    def output(self, x: Tensor, v: Tensor, t: float) -> Tensor:
        """What a network of this prediction returns for the score."""
        on_v, on_output = self.prediction.score(self.process, t)
        return (self.score(x, v, t) - on_v * v) / on_output


def cld_mixture(
    weights: Sequence[float] = (0.3, 0.5, 0.2),
    means: Sequence[float] = (-0.9, 0.1, 0.8),
    stds: Sequence[float] = (0.15, 0.1, 0.2),
    process: CLD | None = None,
    shape: tuple[int, ...] = (1,),
    mixed: bool = True,
    **options: Any,
) -> ScoreNetwork:
    """A perfect network of CLD for data whose elements are independent draws from a mixture of Gaussians.

    weights, means, stds  of the components
    process               CLD() when None
    mixed                 whether it predicts a mixed score
    options               of ScoreNetwork
    """
    process = CLD() if process is None else process
    prediction = Velocity(mixed)
    module = VelocityScore(process, prediction, weights, means, stds)
    options = {"label_dtype": torch.float64, "name": "cld_mixture", **options}
    return ScoreNetwork(module, process, shape, prediction=prediction, **options)


def cld_gaussian(mean: float = 0.0, std: float = 0.5, **options: Any) -> ScoreNetwork:
    """A perfect network of CLD for data N(mean, std^2); the other options are those of cld_mixture."""
    return cld_mixture((1.0,), (mean,), (std,), **{"name": "cld_gaussian", **options})
