"""The variational bound as a loss, with the noise schedule learned (VDM)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...networks.network import ScoreNetwork
from ...processes import VDM
from ...processes.levels import per_sample
from ...processes.vdm import Line
from ..data import Batch
from .denoising import dropped, told
from .times import spread

LEVELS = 256  # of a pixel
SEEN = 16  # one image in so many has its reconstruction computed: it does not concern the network


def bound(
    network: ScoreNetwork, batch: Batch, generator: torch.Generator, *, drop: float = 0.1
) -> Tensor:
    """What pixels of 256 levels cost at most, in bits/dim: reconstruction, prior and 1/2 E gamma'(t)
    |eps - eps_hat|^2 of continuous time (Kingma et al. 2021, eq. 11 and 16).

    A schedule `gamma` of the network's module is learned along (zoo.vdm.LearnedGamma): its ends follow this
    bound, which depends on nothing else of it, and its shape the variance of the diffusion term (appendix
    I.2). Without one it is the process's, fixed.

    Args:
        network: predicts eps and is told gamma; a class is its condition.
        batch: images in [-1, 1], which are rounded to levels, and their classes.
        generator: source of the times, the noise and the dropped labels, on the CPU.
        drop: probability in [0, 1] that a class is replaced by the network's null.

    Returns:
        A scalar that can be differentiated.

    Raises:
        ValueError: the network is none of VDM.
    """
    about = network.parameterisation
    if not isinstance(network.process, VDM) or (about.prediction, about.label) != ("eps", "gamma"):
        raise ValueError(
            f"the bound trains a network of VDM that predicts 'eps' and is told 'gamma'; {network.name!r} "
            f"predicts {about.prediction!r} of {type(network.process).__name__}, told {about.label!r}"
        )
    x0, y = batch
    f = (2.0 * (0.5 * (LEVELS - 1) * (x0 + 1.0)).round() + 1.0) / LEVELS - 1.0
    t = spread(len(f), generator).to(f)
    eps, noise = torch.randn((2, *f.shape), generator=generator, dtype=f.dtype).to(f.device)
    y = dropped(network, y, drop, generator)
    condition = told(network, y)
    low, high, share, slope = schedule(network, t)
    gamma = low + (high - low) * share
    output = network(mixed(f, eps, gamma), gamma.to(network.label_dtype), condition)[0]
    each = 0.5 * (high - low) * slope * (eps - output).square().flatten(1).sum(dim=1)
    to_bits = 1.0 / (f[0].numel() * math.log(2.0))
    follow_variance((share, slope), each.detach() * to_bits)
    seen = f[::SEEN]
    parts = (reconstruction(seen, noise[::SEEN], low), prior(f, high), each)
    return to_bits * sum((part.mean() for part in parts), start=x0.new_zeros(()))


def schedule(network: ScoreNetwork, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """gamma's ends, and of times t [n] the share of the way between them and its slope."""
    learned = getattr(network.module, "gamma", None)
    if learned is None:
        gamma = getattr(network.process, "gamma", None)
        if not isinstance(gamma, Line):
            raise ValueError(
                f"{network.name!r} has neither a schedule `gamma` to learn nor a straight one; give "
                "process=VDM.linear()"
            )
        low, high = t.new_tensor(gamma.low), t.new_tensor(gamma.high)
        return low, high, t, torch.ones_like(t)
    at = t.detach().requires_grad_()
    share = learned.share(at)
    (slope,) = torch.autograd.grad(share.sum(), at, create_graph=True)
    return *learned.ends, share, slope


def follow_variance(parts: tuple[Tensor, ...], loss: Tensor) -> None:
    """Makes the gradients [n] of the parts those of loss^2 in place of the loss [n]."""
    for part in parts:
        if part.requires_grad:
            part.register_hook(lambda gradient: 2.0 * loss * gradient)


def mixed(f: Tensor, eps: Tensor, gamma: Tensor) -> Tensor:
    """alpha f + sigma eps at gamma [n]."""
    alpha, sigma = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
    return per_sample(alpha, f) * f + per_sample(sigma, f) * eps


def reconstruction(f: Tensor, noise: Tensor, gamma: Tensor) -> Tensor:
    """-log p(f | z_0) of images [n, ...], [n] in nats: the softmax of -(z_0 / alpha - v)^2 / (2 e^gamma) over
    the levels v, z_0 / alpha = f + e^(gamma / 2) noise."""
    values = (2.0 * torch.arange(LEVELS, dtype=f.dtype, device=f.device) + 1.0) / LEVELS - 1.0
    bare = f + (0.5 * gamma).exp() * noise
    every = -0.5 * (-gamma).exp() * (bare[..., None] - values).square()
    own = -0.5 * noise.square()  # f is a level
    return (every.logsumexp(dim=-1) - own).flatten(1).sum(dim=1)


def prior(f: Tensor, gamma: Tensor) -> Tensor:
    """KL(N(alpha f, sigma^2) || N(0, 1)) of images [n, ...], [n] in nats."""
    variance = torch.sigmoid(gamma)
    each = torch.sigmoid(-gamma) * f.square() + variance - logsigmoid(gamma) - 1.0
    return 0.5 * each.flatten(1).sum(dim=1)
