"""A module with EDM's calling convention as a `ScoreNetwork`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ... import checks
from ...networks.network import OPTIONS, ScoreNetwork
from ...networks.wrapper import Wrapper
from ...processes import EDM, GaussianProcess
from ..layers.embedding import one_hot
from .levels import LEAST, MOST, Rounded, bounds, rounded_karras

PROBES = (0.003, 0.1, 0.77, 3.0, 79.0)  # levels that a network without a table of them leaves alone


@dataclass(frozen=True)
class RoundedBy:
    """A network's own round_sigma, of one level on the host."""

    rounding: Callable[[Tensor], Tensor]

    def __call__(self, sigma: float) -> float:
        with torch.no_grad():
            return float(self.rounding(torch.tensor(sigma, dtype=torch.float64)))


class Labelled(nn.Module):
    """`model`, which is told classes as one-hot numbers, called with their indices."""

    def __init__(self, model: nn.Module, label_dim: int) -> None:
        super().__init__()
        self.model, self.label_dim = model, label_dim

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.model(x, label, one_hot(classes, self.label_dim, x.dtype))


class Denoiser(Wrapper):
    """D(x, sigma, classes) of a module that takes sigma and one-hot classes in float32."""

    def __init__(self, module: Any, label_dim: int) -> None:
        super().__init__(module)
        self.label_dim = label_dim

    def forward(self, x: Tensor, sigma: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.module(x, sigma, one_hot(classes, self.label_dim, torch.float32))


def edm_network(
    net: Callable[..., Any], process: GaussianProcess | None = None, **options: Any
) -> ScoreNetwork:
    """A network of EDM, or of EDM2: net(x, sigma, class_labels) that returns D, an estimate of x0.

    net      its preconditioning is its own: EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond and their kin. Its
             img_channels, img_resolution, label_dim, sigma_min and sigma_max are read where it has them, and
             its round_sigma, by which then all levels are rounded
    process  EDM's law from min(80, sigma_max) to max(0.002, sigma_min), as in EDM's sampler, if None
    options  of ScoreNetwork, such as shape

    x and sigma are float32. A condition is a class, which the network is told as one-hot numbers; the class
    label_dim, one more than there are, is all zeros, the unconditional branch. Raises ValueError where the
    shape is not known.
    """
    checks.function("net", net, "give EDM's network, net(x, sigma, class_labels)")
    checks.names("edm_network", options, OPTIONS - {"process"})
    label_dim = int(getattr(net, "label_dim", 0) or 0)
    found: dict[str, Any] = {"classes": label_dim or None, "null": label_dim or None}
    channels, side = (getattr(net, name, None) for name in ("img_channels", "img_resolution"))
    if channels is not None and side is not None:
        found["shape"] = (int(channels), int(side), int(side))
    elif "shape" not in options:
        raise ValueError(
            f"{type(net).__name__} has no img_channels and img_resolution: give "
            "shape=(channels, height, width)"
        )
    if process is None:
        process, grid = law_of(net)
        found["grid"] = grid
    found |= {"name": type(net).__name__, **options}
    made = Denoiser(net, label_dim)
    made.train(getattr(net, "training", False))
    return ScoreNetwork.from_denoiser(made, found.pop("shape"), process, **found)


def law_of(net: Any) -> tuple[GaussianProcess, Any]:
    """The process of a network's levels, and the grid of it; None is the process's own."""
    low, high = bounds(
        float(getattr(net, "sigma_min", LEAST)), float(getattr(net, "sigma_max", MOST))
    )
    plain = EDM(t_min=low, t_max=high), None
    if (rounding := getattr(net, "round_sigma", None)) is None:
        return plain
    nearest = RoundedBy(rounding)
    if all(nearest(sigma) == sigma for sigma in PROBES):
        return plain
    return Rounded(t_min=low, t_max=high, nearest=nearest), rounded_karras
