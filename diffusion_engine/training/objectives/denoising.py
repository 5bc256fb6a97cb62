"""The loss of denoising networks, whatever they predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import checks
from ...genie import natural
from ...networks.network import Condition, ScoreNetwork
from ...processes.levels import Levels, per_sample
from ..data import Batch
from .times import drawn_times

# Of the squared error of the output; the error of x0 is q times that of the output.
WEIGHTS: dict[str, Callable[[Levels, Any], Any]] = {
    "output": lambda at, q: 1.0,
    "x0": lambda at, q: q * q,
    "truncated_snr": lambda at, q: q * q * ((at.alpha / at.sigma) ** 2).clamp(min=1.0),
}


def told(network: ScoreNetwork, y: Tensor, guidance: Tensor | None = None) -> Condition | None:
    """The conditions y of a batch, where the network takes any; with the scales [B] of one that is told
    them."""
    own = y if network.classes is not None or network.null is not None else None
    if network.scale_input is None or guidance is None:
        return own
    scales = {name: value.float() for name, value in network.scale_input(guidance).items()}
    return scales if own is None else {"": own, **scales}


def null_of(network: ScoreNetwork, y: Tensor) -> Tensor:
    """The network's null condition for every sample of y [B, ...]. Raises ValueError where it has none."""
    if not isinstance(network.null, (int, Tensor)):
        raise ValueError(f"{network.name!r} has no null condition to guide from; say guidance=1")
    return torch.as_tensor(network.null, dtype=y.dtype, device=y.device).expand_as(y)


def dropped(network: ScoreNetwork, y: Tensor, drop: float, generator: torch.Generator) -> Tensor:
    """Conditions y [B, ...], each replaced by the network's null with probability `drop`: it is then trained
    without one too, as classifier-free guidance needs it (Ho & Salimans 2022). Without a null they stay."""
    if network.null is None:
        return y
    free = (torch.rand(len(y), generator=generator) < drop).to(y.device)
    return torch.where(free.view(-1, *[1] * (y.ndim - 1)), null_of(network, y), y)


def noised(x0: Tensor, at: Levels, eps: Tensor) -> Tensor:
    """alpha x0 + sigma eps."""
    return per_sample(at.alpha, x0) * x0 + per_sample(at.sigma, x0) * eps


def target(network: ScoreNetwork, at: Levels, x0: Tensor, eps: Tensor) -> Tensor:
    """What the network should return for alpha x0 + sigma eps.

    Of x0 = p x + q o is o = ((1 - p alpha) x0 - p sigma eps) / q: eps, x0, v, F or eps - x0 as it predicts.
    """
    (p,), q = network.parameterisation.weights(at)
    of_x0, of_eps = (1.0 - p * at.alpha) / q, -p * at.sigma / q
    return per_sample(of_x0, x0) * x0 + per_sample(of_eps, x0) * eps


def denoising(
    network: ScoreNetwork,
    batch: Batch,
    generator: torch.Generator,
    *,
    drop: float = 0.1,
    weight: str = "output",
    times: dict[str, Any] | None = None,
) -> Tensor:
    """Mean of w(t) |output - target|^2 (denoising score matching: Ho et al. 2020, eq. 14; Karras et al.
    2022, eq. 8; flow matching: Lipman et al. 2023, eq. 23).

    Args:
        network: predicts eps, x0, v, F (EDM), flow or the like; a class is its condition.
        batch: images in [-1, 1] and their classes.
        generator: source of the times, the noise and the dropped labels, on the CPU.
        drop: probability in [0, 1] that a class is replaced by the network's null.
        weight: "output" (of EDM its own weighting), "x0", or "truncated_snr" of x0 (Salimans & Ho 2022).
        times: their law, see `drawn_times`.

    Returns:
        A scalar that can be differentiated.
    """
    x0, y = batch
    t = drawn_times(network.process, len(x0), generator, times).to(x0.device)
    eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
    y = dropped(network, y, drop, generator)
    return errors(network, Batch(x0, y), t, eps, weight).mean()


def errors(network: ScoreNetwork, batch: Batch, t: Tensor, eps: Tensor, weight: str) -> Tensor:
    """w(t) (output - target)^2 of images noised to times t [B] with eps, in each pixel."""
    w = WEIGHTS[checks.one_of("weight", weight, tuple(WEIGHTS))]
    x0, y = batch
    at = Levels.of(network.process, t)
    _, scaled, label = natural.inputs(network, noised(x0, at, eps), t)
    error = network(scaled, label, told(network, y))[0] - target(network, at, x0, eps)
    _, q = network.parameterisation.weights(at)
    return per_sample(w(at, q), error) * error.square()
