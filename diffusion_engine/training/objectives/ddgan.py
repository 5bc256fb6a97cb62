"""Denoising diffusion GANs: a generator and a discriminator of the steps of a short chain."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...genie import natural
from ...networks.network import ScoreNetwork
from ...processes import Discrete
from ...processes.levels import per_sample
from ...solvers.ddim import forward_std, posterior_std
from ..data import Batch
from .base import Given, Objective, Turn
from .discriminator import Discriminator


class Chain:
    """The laws of a short chain, for states of any timesteps i [B] at once.

    x_{i-1} = alpha x0 + sigma eps,  x_i = keep x_{i-1} + added n, and the posterior
    x_{i-1} = c1 x0 + c2 x_i + std n; x_{-1} is x0.
    """

    def __init__(self, process: Discrete) -> None:
        states = [process.clean, *(process.at(float(i)) for i in range(len(process.alpha_bar)))]
        rows = []
        for t, s in pairwise(states):
            std = posterior_std(s, t)
            c2 = max(t.sigma**2 - std**2, 0.0) ** 0.5 / s.sigma
            keep, added = s.alpha / t.alpha, forward_std(s, t)
            rows.append((t.alpha, t.sigma, keep, added, t.alpha - c2 * s.alpha, c2, std))
        self.table = torch.tensor(rows, dtype=torch.float64).T

    def __len__(self) -> int:
        return self.table.shape[1]

    def weights(self, i: Tensor, x: Tensor) -> Sequence[Tensor]:
        """(alpha, sigma, keep, added, c1, c2, std) of timesteps i, as weights of x."""
        return [per_sample(row[i], x) for row in self.table.to(x.device)]

    def pairs(self, x0: Tensor, i: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(x_{i-1}, x_i) of data x0 [B, C, *pixel]."""
        alpha, sigma, keep, added, *_ = self.weights(i, x0)
        eps, n = normals(x0, generator), normals(x0, generator)
        before = alpha * x0 + sigma * eps
        return before, keep * before + added * n

    def posterior(self, x0: Tensor, x: Tensor, i: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of x_{i-1} given x0 and x = x_i."""
        *_, c1, c2, std = self.weights(i, x)
        return c1 * x0 + c2 * x + std * normals(x, generator)


def normals(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def generated(
    network: ScoreNetwork, x: Tensor, i: Tensor, y: Tensor, generator: torch.Generator
) -> Tensor:
    """x0 = G(x, i, z, y), z fresh."""
    _, scaled, label = natural.inputs(network, x, i)
    z = torch.randn((len(x), network.parameterisation.latent), generator=generator, dtype=x.dtype)
    return network(scaled, label, y, z.to(x.device))[0]


def gradient_penalty(logits: Tensor, x: Tensor) -> Tensor:
    """R1: mean of |d D / dx|^2 over the batch (Mescheder et al. 2018, eq. 9, without gamma / 2)."""
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return slope.square().flatten(1).sum(dim=1).mean()


class DDGAN(Objective):
    """Two turns on one batch (Xiao et al. 2022, eq. 3 to 5), non-saturating and logistic:

        discriminator  E softplus(-D(x_{i-1}, x_i)) + E softplus(D(x', x_i)) + r1 / 2 E |d D / d x_{i-1}|^2
        generator      E softplus(-D(x', x_i)),  x' ~ q(x_{i-1} | x_i, x0 = G(x_i, i, z, y))

    The same x' serves both turns.

    r1      weight of the penalty, which is taken of real states only
    lazy    steps from one penalty to the next, whose weight is `lazy` times as large (Karras et al. 2020)
    lr      learning rate of the discriminator as a share of the recipe's
    ahead   steps at the beginning in which the discriminator trains alone: of a generator that begins well
            it needs hundreds of steps to learn anything, in which its gradient leads nowhere
    widths  channels of the discriminator

    Raises ValueError where the network is no generator of a short chain.
    """

    def __init__(
        self,
        given: Given,
        r1: float = 0.1,
        lazy: int = 10,
        lr: float = 0.8,
        ahead: int = 0,
        widths: Sequence[int] = (32, 64, 128),
    ) -> None:
        self.given, self.r1, self.lazy, self.lr, self.ahead = given, r1, lazy, lr, ahead
        network = given.network
        if not isinstance(network.process, Discrete) or not network.parameterisation.latent:
            raise ValueError(
                f"the objective 'ddgan' trains a generator with a latent on a short chain, and the card of "
                f'{network.name!r} describes none; say "process": {{"name": "ddgan", "n": 4}} and "latent"'
            )
        self.chain = Chain(network.process)
        classes, inputs = network.classes or 1, network.shape[0]
        self.discriminator = Discriminator(len(self.chain), classes, inputs, widths)
        self.discriminator.to(given.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.step = 0

    def turns(self) -> list[Turn]:
        critic, generator = self.discriminator.parameters(), self.given.module.parameters()
        return [
            Turn("discriminator", critic, self.discriminate, lr=self.lr),
            Turn("generator", generator, self.generate),
        ]

    def modules(self) -> dict[str, Any]:
        return {"discriminator": self.discriminator}

    def before(self, step: int, average: Any) -> None:
        self.step = step

    def discriminate(self, batch: Batch, generator: torch.Generator) -> Tensor:
        x0, y = batch
        i = torch.randint(len(self.chain), (len(x0),), generator=generator).to(x0.device)
        real, x = self.chain.pairs(x0, i, generator)
        with torch.set_grad_enabled(self.step >= self.ahead):
            made = generated(self.given.network, x, i, y, generator)
        fake = self.chain.posterior(made, x, i, generator)
        self.faked = fake, x, i, y
        penalised = self.r1 > 0.0 and self.step % self.lazy == 0
        of_real = self.discriminator(real.requires_grad_(penalised), x, i, y)
        of_fake = self.discriminator(fake.detach(), x, i, y)
        loss = F.softplus(-of_real).mean() + F.softplus(of_fake).mean()
        if penalised:
            loss = loss + 0.5 * self.r1 * self.lazy * gradient_penalty(of_real, real)
        return loss

    def generate(self, batch: Batch, generator: torch.Generator) -> Tensor:
        if self.step < self.ahead:
            return torch.zeros((), device=batch.x0.device, requires_grad=True)
        # No gradient is wanted of the discriminator's weights here, and none is computed.
        self.discriminator.requires_grad_(False)
        loss = F.softplus(-self.discriminator(*self.faked)).mean()
        self.discriminator.requires_grad_(True)
        return loss
