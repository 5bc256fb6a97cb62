"""Inverse problems whose method leads the seats: the network runs as it is, the measurement beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from .. import checks
from ..networks.network import ScoreNetwork
from ..networks.placement import place
from ..sampler.led import Run
from .inverse import InverseProblem, refuse


@dataclass(frozen=True)
class Measured(InverseProblem):
    """A method that reads the measurement itself.

    sigma_y  standard deviation of the measurement's noise, 0 or more
    """

    leads: ClassVar[bool] = True
    sigma_y: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if checks.number("sigma_y", self.sigma_y) < 0.0:
            raise ValueError(f"sigma_y={self.sigma_y:g}: a standard deviation is 0 or more")

    def network(self, network: ScoreNetwork) -> ScoreNetwork:
        """The same network, whose requests come with a measurement.

        Raises ValueError where the network has no estimate of x0, or the operator's adjoint is wrong.
        """
        refuse(self, network.parameterisation)
        measured = self.made.measured(network.shape, place(network.module, None, None)[1])
        module = Beside(network.module)
        module.train(getattr(network.module, "training", False))
        return network.with_module(module, measured=measured)

    def measurement(self, run: Run) -> Tensor:
        """y of a sample, [*measured]. Raises ValueError of a sample that begins elsewhere than in noise."""
        refuse_given(self, run)
        given = run.job.conditions[0]
        assert isinstance(given, Mapping)
        return given["measurement"]


def refuse_given(made: InverseProblem, run: Run) -> None:
    """Raises ValueError of a sample that begins elsewhere than in noise, or keeps a region."""
    if run.job.x is not None or run.job.mask is not None:
        raise ValueError(
            f"driver {made.name!r} begins with noise of its own and follows a measurement: leave out x, "
            "mask and known"
        )


class Beside(nn.Module):
    """A module that is called with a measurement and reads none."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Any, measurement: Tensor | None = None, **named: Any) -> Any:
        """What the module returns."""
        return self.module(*given, **named)
