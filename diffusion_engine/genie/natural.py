"""Networks called with a state and its time, and their prediction as eps, differentiably on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..networks.network import ScoreNetwork
from ..networks.parameterisation import Parameterisation
from ..processes.levels import Levels, per_sample


def inputs(network: ScoreNetwork, x: Tensor, t: Tensor) -> tuple[Levels, Tensor, Tensor]:
    """The levels of times t [N], and what the network is given for states x there: input and label."""
    at = Levels.of(network.process, t.double())
    about = network.parameterisation
    scaled = per_sample(about.c_in(at), x) * x
    return at, scaled, about.label_of(at).to(network.label_dtype)


def eps_weights(network: ScoreNetwork, at: Levels) -> tuple[Any, Any]:
    """(a, b) with eps = a x + b output: x0 = p x + q output, and eps = (x - alpha x0) / sigma."""
    (p,), q = network.parameterisation.weights(at)
    return (1.0 - at.alpha * p) / at.sigma, -at.alpha * q / at.sigma


def eps(network: ScoreNetwork, at: Levels, x: Tensor, out: Tensor) -> Tensor:
    """eps of states x and the first channel block of what the network returned."""
    of_x, of_out = eps_weights(network, at)
    return per_sample(of_x, x) * x + per_sample(of_out, x) * out[:, : x.shape[1]]


def refuse_ends(about: Parameterisation) -> None:
    """Raises ValueError where a network is told where its step ends, and says nothing of one time alone."""
    if about.end_label is not None:
        raise ValueError(
            f"{about.name!r} is told where its step ends (end_label): what it returns is of a step, and here "
            "that of one time is needed; use a network without"
        )


def check(network: ScoreNetwork) -> None:
    """Raises ValueError where a network cannot be called this way: a rule of the user's own that takes
    no tensors would stop at the first call, or lose its derivative."""
    about = network.parameterisation
    if about.latent:
        raise ValueError(
            f"{about.name!r} reads a latent: a generator has no ODE to take a derivative along"
        )
    refuse_ends(about)
    t = torch.tensor([0.3, 0.7], dtype=torch.float64) * about.process.t_max
    at = Levels.of(about.process, t)
    rules = {"prediction": about.weights, "label": about.label_of, "scale": about.c_in}
    for kind, rule in rules.items():
        try:
            rule(at)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"the function behind {kind}= has to take tensors in place of numbers here ({error}): "
                "write it with operators, at.lam, at.ratio and torch functions, not with math"
            ) from error
