"""An exact network for every solver."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ..genie import exact_derivative
from ..networks.linearize import linearized
from ..networks.network import ScoreNetwork
from ..processes import VP, Discrete, TrigFlow
from ..sampler.sampler import Sampler
from ..solvers import Rule, solver
from .cld import cld_mixture
from .labelled import labelled_mixture
from .mixture import Mixture
from .quantiles import MixtureFlowMap, MixtureGenerator, MixtureStudent

Shape = tuple[int, ...]


def generator(shape: Shape = (1,), steps: int = 4) -> ScoreNetwork:
    """MixtureGenerator on a chain of so many steps."""
    chain = Discrete.few(steps)
    return ScoreNetwork(
        MixtureGenerator(chain), chain, shape, prediction="x0", label_dtype=torch.int64,
        latent=torch.Size(shape).numel(), name="mixture generator",
    )  # fmt: skip


# Students and generators learn another function than the mean of x0.
_STUDENTS: dict[str, Callable[[Shape], ScoreNetwork]] = {
    "consistency": MixtureStudent().consistency,
    "scm": partial(MixtureStudent().network, TrigFlow()),
    "lcm": partial(MixtureStudent().network, Discrete.scaled_linear()),
    "ddgan": generator,
    "flow_map": partial(MixtureFlowMap().network, VP()),
}
# Most solvers take the first; the others need more than a score of x.
_SCORES: tuple[Callable[[Shape], ScoreNetwork], ...] = (
    partial(Mixture().network, VP()),
    lambda shape: cld_mixture(shape=shape),
    lambda shape: linearized(cld_mixture(shape=shape), 3),
    lambda shape: exact_derivative(labelled_mixture(shape=shape)),
)


def exact_network(name: str | Rule, shape: Shape = (1,)) -> ScoreNetwork:
    """The perfect network that a solver runs on, of data whose elements are draws from Mixture().

    name   of a solver, or a solver of your own
    shape  of a sample
    Raises ValueError where the name is unknown or the solver suits none.
    """
    wanted = solver(name)
    if wanted.name in _STUDENTS:
        return _STUDENTS[wanted.name](shape)
    reasons = []
    for make in _SCORES:
        network = make(shape)
        try:
            Sampler(network, wanted, 4)
        except ValueError as error:
            reasons.append(f"{network.name}: {error}")
            continue
        return network
    raise ValueError(
        f"no exact network of diffusion_engine.testing suits solver {wanted.name!r}: {'; '.join(reasons)}"
    )
