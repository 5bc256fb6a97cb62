"""Perfect students of a mixture, by quantiles: an ODE keeps them, and a uniform number draws from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.network import ScoreNetwork
from ..networks.prediction import Consistency
from ..processes import EDM, Discrete, GaussianProcess
from .consistency import Inner
from .ddgan import fresh
from .exact import Data, angle, unit
from .mixture import Mixture

HALVINGS = 80  # of an interval, until neighbouring float64 numbers are left


def below(x: Tensor, weights: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """The share of a mixture below x [...]; the components lie on the last axis of the others."""
    return (weights * torch.special.ndtr((x[..., None] - means) / stds)).sum(-1)


def quantile(share: Tensor, weights: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """The x below which a share [...] of a mixture lies, by bisection; weights, means and stds have the
    components on their last axis."""
    low = (means - 40.0 * stds).amin(-1).expand(share.shape)
    high = (means + 40.0 * stds).amax(-1).expand(share.shape)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        under = below(middle, weights, means, stds) < share
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return 0.5 * (low + high)


@dataclass(frozen=True)
class MixtureStudent(Data):
    """The end of the probability flow ODE of a mixture, in place of E[x0 | x].

        x0 = F_min^-1(F(x / alpha)),  F the distribution function of x0 + sigma / alpha eps

    The flow of every element is monotone and ends at the data's law, so that quantiles stay.

    sigma_min  the noise that is left, sigma / alpha
    """

    data: Mixture = field(default_factory=Mixture)
    sigma_min: float = 0.0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Where x0 + sigma eps goes; sigma broadcasts against x."""
        weights, means, stds = self.data.components(x)
        at, end = ((stds**2 + level**2) ** 0.5 for level in (sigma[..., None], self.sigma_min))
        return quantile(below(x, weights, means, at), weights, means, end)

    def denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self(x / alpha, sigma / alpha)

    def consistency(self, shape: tuple[int, ...] = (1,), **options: Any) -> ScoreNetwork:
        """It as a trained consistency model comes, for data and time range of Song et al. 2023; options of
        ScoreNetwork."""
        rule = Consistency()
        process = EDM(t_min=rule.sigma_min, t_max=80.0)
        inner = Inner(MixtureStudent(self.data, rule.sigma_min), rule)
        known: dict[str, Any] = {
            "prediction": rule,
            "label": rule.c_noise,
            "label_dtype": torch.float64,
            "name": "mixture student",
        }
        return ScoreNetwork(inner, process, shape, **{**known, **options})


class MixtureFlowMap(nn.Module):
    """The flow map of a mixture: the x0 whose DDIM step from one angle of noise to another makes the step of
    the probability flow ODE, which keeps quantiles in every element.

        x_t = F_t^-1(F_s(x_s)) = (sin t x_s + sin(s - t) x0) / sin s,  x = cos x0 + sin eps

    data  the mixture, Mixture() when None
    """

    def __init__(self, data: Mixture | None = None) -> None:
        super().__init__()
        self.data = data or Mixture()

    def forward(self, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        state, like = x.double(), (-1, *[1] * (x.ndim - 1))
        s, t = start.double().view(like), end.double().view(like)
        weights, means, stds = self.data.components(state)

        def law(angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            cos, sin = angle.cos()[..., None], angle.sin()[..., None]
            return weights, cos * means, ((cos * stds) ** 2 + sin**2).sqrt()

        moved = quantile(below(state, *law(s)), *law(t))
        gap = (s - t).sin()
        still = gap == 0.0  # the limit of no step at all
        made = (s.sin() * moved - t.sin() * state) / torch.where(still, 1.0, gap)
        return torch.where(still, self.data.denoised(state, s.cos(), s.sin()), made).to(x.dtype)

    def network(
        self, process: GaussianProcess, shape: tuple[int, ...] = (1,), **options: Any
    ) -> ScoreNetwork:
        """It on a process, told the angles of both ends of a step; options of ScoreNetwork."""
        known: dict[str, Any] = {
            "prediction": "x0",
            "label": angle,
            "end_label": lambda at, end: angle(end),
            "label_dtype": torch.float64,
            "scale": unit,
            "name": "mixture flow map",
        }
        return ScoreNetwork(self, process, shape, **{**known, **options})


class MixtureGenerator(nn.Module):
    """G(x, i, z) draws x0 of a mixture from its posterior given x = x_i, in every element independently: the
    quantile at Phi(z). With it a denoising diffusion GAN of any number of steps ends at the mixture.

    process  the chain; its last alpha_bar is what the end misses
    data     the mixture, Mixture() when None

    z is [N, latent], with an entry for every element of a sample.
    """

    alpha: Tensor

    def __init__(self, process: Discrete, data: Mixture | None = None) -> None:
        super().__init__()
        self.data = data or Mixture()
        self.register_buffer("alpha", torch.tensor(process.alpha_bar, dtype=torch.float64).sqrt())

    def forward(self, x: Tensor, label: Tensor, z: Tensor) -> Tensor:
        alpha = self.alpha[label.long()].view(-1, *[1] * (x.ndim - 1))
        law = self.data.posterior(x.double(), alpha, (1.0 - alpha**2).sqrt())
        return quantile(torch.special.ndtr(fresh(x, z).double()), *law).to(x.dtype)
