"""Networks made of an energy: their score is its gradient, and the energy itself comes along.

    log p_t(x) = -E(x, t) + const,          score = -grad E
    log p_t(x) = -E(x, t) / sigma + const,  eps = grad E      as Du et al. 2023 train theirs

What accepts and rejects, or mixes densities, needs their ratio beside the score, which a network of a score
alone cannot say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks
from ..processes import GaussianProcess, Point
from .network import ScoreNetwork
from .prediction import eps, score

BLOCK = 1  # the channel block whose elements sum to the energy


@dataclass(frozen=True)
class EnergyGradient:
    """What a network of an energy predicts in channel block 0: -grad E, the score; or where it is `scaled`
    grad E, which is eps. The elements of block 1 sum to E. A `prediction` of ScoreNetwork.

    scaled  whether log p = -E / sigma, in place of -E
    """

    scaled: bool = False

    def __call__(self, at: Point) -> tuple[float, float]:
        return eps(at) if self.scaled else score(at)

    def log_density(self, at: Point) -> float:
        """The weight of E in log p_t, up to a constant."""
        return -1.0 / at.sigma if self.scaled else -1.0


class EnergyModule(nn.Module):
    """-grad E, or grad E where it is `scaled`; and a block of zeros but for its first element, E."""

    def __init__(self, energy: Callable[..., Tensor], scaled: bool) -> None:
        super().__init__()
        self.energy, self.scaled = energy, scaled

    def forward(
        self, x: Tensor, label: Tensor, *condition: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            found = _checked(self.energy(leaf, label, *condition, **named), len(x))
            (gradient,) = torch.autograd.grad(found.sum(), leaf)
        block = first = torch.zeros_like(x)
        for _ in x.shape[1:]:
            first = first.select(1, 0)
        first.copy_(found.detach())
        # A gradient of other strides has no memory that a kernel could be pointed at.
        out = torch.empty_like(x).copy_(gradient if self.scaled else -gradient)
        return out, block


def _checked(found: Any, samples: int) -> Tensor:
    """The energies, if they are some that have a gradient."""
    if not isinstance(found, Tensor) or found.shape != (samples,):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"the energy returned {got} for {samples} samples; it returns one number for each, [samples]"
        )
    if not found.requires_grad:
        raise ValueError(
            "the energy has no derivative with respect to x: it may not detach, nor run under no_grad"
        )
    return found


def from_energy(
    energy: Callable[..., Tensor],
    process: GaussianProcess,
    shape: tuple[int, ...],
    *,
    scaled: bool = False,
    **options: Any,
) -> ScoreNetwork:
    """The network whose score is -grad_x E(x, t), by automatic differentiation (Du et al. 2023, section 4).

    energy   a module or function, called as energy(x, label) or energy(x, label, condition) with the state
             x [N, C, *pixel] itself; returns E [N]. 0.5 ||f(x, t)||^2 of any network f is one
    process  the noise that it was trained on
    shape    of a sample, (C, *pixel)
    scaled   whether eps = grad E and log p = -E / sigma, as trained by the loss of eps; else log p = -E
    options  further ones of ScoreNetwork, such as label and null

    A sampler needs the gradient alone; `annealed_mcmc` also reads E. Raises ValueError where an option makes
    no sense.
    """
    checks.function("energy", energy, "give a function of (x, label) that returns energies [N]")
    if taken := sorted({"prediction", "scale", "variance", "derivative"} & options.keys()):
        raise ValueError(
            f"from_energy takes no {', '.join(taken)}: it predicts its gradient at the state x itself, and "
            "its energy beside"
        )
    rule = EnergyGradient(checks.flag("scaled", scaled))
    module = EnergyModule(energy, rule.scaled)
    return ScoreNetwork(module, process, shape, prediction=rule, **options)
