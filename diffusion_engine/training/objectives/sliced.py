"""Sliced score matching: the score is learned from noisy states alone, without the noise in them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ... import checks
from ...genie import natural
from ...networks.forward import turn
from ...networks.network import ScoreNetwork
from ...processes.levels import Levels, per_sample
from ..data import Batch
from .denoising import dropped, noised, told
from .times import drawn_times

DIRECTIONS = ("rademacher", "normal")


def directions(like: Tensor, law: str, generator: torch.Generator) -> Tensor:
    """Random v like a tensor, with E v v^T = 1."""
    if law == "normal":
        v = torch.randn(like.shape, generator=generator)
    else:
        v = 2.0 * torch.randint(2, like.shape, generator=generator) - 1.0
    return v.to(like)


def sliced(
    network: ScoreNetwork,
    batch: Batch,
    generator: torch.Generator,
    *,
    reduced: bool = True,
    law: str = "rademacher",
    drop: float = 0.1,
    times: dict[str, Any] | None = None,
) -> Tensor:
    """E sigma^2 (v^T (ds/dx) v + (v^T s)^2 / 2) of the score s = -eps / sigma, for random directions v
    (Song et al. 2019, sliced score matching, eq. 7; "reduced" has |s|^2 in place of (v^T s)^2, eq. 8; the
    weight sigma^2 is that of noise-conditional networks, Song & Ermon 2019, eq. 6).

    Twice its mean over the elements of x. Beside a constant that is in expectation the mean of
    |eps - noise|^2, the loss of denoising score matching, at several times its cost and variance: it serves
    where the noise of a state is not known. The derivative is the network's gradient of v^T s, which the
    training differentiates again.

    Args:
        network: predicts eps, x0, v, F (EDM), flow or the like; a class is its condition.
        batch: images in [-1, 1] and their classes.
        generator: source of the times, the noise, the directions and the dropped labels, on the CPU.
        reduced: |s|^2 is taken whole, which has less variance.
        law: of the directions, "rademacher" (each entry 1 or -1) or "normal".
        drop: probability in [0, 1] that a class is replaced by the network's null.
        times: their law, see `drawn_times`.

    Returns:
        A scalar that can be differentiated.

    Raises:
        ValueError: a law is not known, or the network reads a latent or where its step ends.
    """
    checks.one_of("law", law, DIRECTIONS)
    natural.check(network)
    x0, y = batch
    t = drawn_times(network.process, len(x0), generator, times).to(x0.device)
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
    v = directions(x0, law, generator)
    y = dropped(network, y, drop, generator)
    at = Levels.of(network.process, t)
    x = noised(x0, at, noise).requires_grad_()
    # Fused attention has no second derivative.
    with torch.enable_grad(), turn(), sdpa_kernel(SDPBackend.MATH):
        _, scaled, label = natural.inputs(network, x, t)
        out = network(scaled, label, told(network, y))[0]
        eps = natural.eps(network, at, x, out)
        along = (v * eps).flatten(1).sum(dim=1)
        (slope,) = torch.autograd.grad(along.sum(), x, create_graph=True)
    square = eps.square().flatten(1).sum(dim=1) if reduced else along.square()
    curvature = (v * per_sample(at.sigma, x) * slope).flatten(1).sum(dim=1)
    return (square - 2.0 * curvature).mean() / x0[0].numel()
