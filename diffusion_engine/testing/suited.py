"""An exact network for every solver."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ..genie import exact_derivative
from ..linearize import linearized
from ..network import ScoreNetwork
from ..processes import VP, Discrete
from ..sampler import Sampler
from ..solvers import Solver, solver
from .cld import cld_mixture
from .consistency import ConsistencyFunction
from .ddgan import GaussianGenerator
from .labelled import labelled_mixture
from .mixture import Mixture

Shape = tuple[int, ...]


def generator(shape: Shape = (1,), steps: int = 4) -> ScoreNetwork:
    """GaussianGenerator on a chain of so many steps."""
    chain = Discrete.few(steps)
    return ScoreNetwork(
        GaussianGenerator(chain), chain, shape, prediction="x0", label_dtype=torch.int64,
        latent=torch.Size(shape).numel(), name="generator",
    )  # fmt: skip


# The first that suits a solver is its own: most take the first, the others need more than a score of x.
_MIXTURES: tuple[Callable[[Shape], ScoreNetwork], ...] = (
    partial(Mixture().network, VP()),
    lambda shape: cld_mixture(shape=shape),
    lambda shape: linearized(cld_mixture(shape=shape), 3),
    lambda shape: exact_derivative(labelled_mixture(shape=shape)),
    partial(Mixture().network, Discrete.scaled_linear()),
)
# Students and generators are networks of their own, which no mixture has in closed form.
_GAUSSIANS: dict[str, Callable[[Shape], ScoreNetwork]] = {
    "consistency": ConsistencyFunction().network,
    "ddgan": generator,
}


def exact_network(name: str | Solver, shape: Shape = (1,)) -> ScoreNetwork:
    """The exact network of a mixture of three Gaussians that a solver runs on.

    name   of a solver, or a solver of your own
    shape  of a sample; its elements are independent

    'consistency' and 'ddgan' get those of one Gaussian. Raises ValueError where the name is unknown or
    the solver suits none of them.
    """
    wanted = solver(name)
    if wanted.name in _GAUSSIANS:
        return _GAUSSIANS[wanted.name](shape)
    for make in _MIXTURES:
        network = make(shape)
        try:
            Sampler(network, wanted, 4)
        except ValueError:
            continue
        return network
    raise ValueError(f"no exact network of diffusion_engine.testing suits solver {wanted.name!r}")
