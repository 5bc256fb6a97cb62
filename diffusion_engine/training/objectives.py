"""Training losses of denoising networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..processes import GaussianProcess


def times(process: GaussianProcess, n: int, generator: torch.Generator) -> Tensor:
    """n times, each uniform on (t_min, t_max) and together evenly spread over it.

    t_i = t_min + (t_max - t_min) ((u + i / n) mod 1), one u ~ U(0, 1) for the batch: the mean over
    the batch then estimates the integral over t with little variance (VDM, Kingma et al. 2021,
    app. I.1).

    Returns:
        [n] float64.
    """
    u = torch.rand((), dtype=torch.float64, generator=generator)
    u = (u + torch.arange(n, dtype=torch.float64) / n) % 1.0
    return process.t_min + (process.t_max - process.t_min) * u


def eps_loss(
    network: nn.Module,
    x0: Tensor,
    y: Tensor,
    process: GaussianProcess,
    generator: torch.Generator,
    *,
    null: int,
    drop: float = 0.1,
) -> Tensor:
    """Mean of |network(alpha x0 + sigma eps, t, y) - eps|^2 (Ho et al. 2020, eq. 14).

    A label is replaced by `null` with probability `drop`, which trains the unconditional network
    that classifier-free guidance needs beside the conditional one (Ho & Salimans 2022).

    Args:
        network: called as network(x, t, y).
        x0: [B, C, H, W] float32, images in [-1, 1].
        y: [B] int64, classes.
        process: the law of x at time t.
        generator: source of the times, the noise and the dropped labels.
        null: the label that means "no class".
        drop: probability in [0, 1].

    Returns:
        A scalar that can be differentiated.
    """
    b = x0.shape[0]
    t = times(process, b, generator)
    alpha, sigma = (
        torch.as_tensor(f(t.numpy()), dtype=x0.dtype).view(b, 1, 1, 1)
        for f in (process.alpha, process.sigma)
    )
    eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    y = torch.where(torch.rand(b, generator=generator) < drop, null, y)
    return F.mse_loss(network(alpha * x0 + sigma * eps, t.to(x0.dtype), y), eps)
