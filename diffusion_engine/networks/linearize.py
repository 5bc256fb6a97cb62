"""Networks of CLD that also return how their output changes with the velocity, for `sscs_exact`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks
from .forward import turn
from .network import ScoreNetwork
from .prediction import Velocity


class Linearized(nn.Module):
    """o, D v, D o, D^2 v, D^2 o, ... of a network o(x, v, t), with D = do/dv: its channel blocks in turn.

    module       called with [x, v] on the channel axis
    powers       the highest power of D, 1 or more
    elementwise  the module returns do/dv of every element itself, as a second channel block; else D is
                 applied by forward-mode differentiation, two more passes for each power
    """

    def __init__(
        self, module: Callable[..., Tensor], powers: int = 1, elementwise: bool = False
    ) -> None:
        super().__init__()
        self.module, self.powers, self.elementwise = module, powers, elementwise

    def forward(self, u: Tensor, label: Tensor, *condition: Any, **named: Any) -> Tensor:
        x, v = u.chunk(2, dim=1)

        def output(velocity: Tensor) -> Tensor:
            return self.module(torch.cat([x, velocity], dim=1), label, *condition, **named)

        if self.elementwise:
            o, slope = output(v).chunk(2, dim=1)
        else:
            o = output(v)

        def product(tangent: Tensor) -> Tensor:
            if self.elementwise:
                return slope * tangent
            with turn():
                return torch.func.jvp(output, (v,), (tangent.to(v.dtype),))[1]

        blocks, pair = [o], [v, o]
        for _ in range(self.powers):
            pair = [product(tangent) for tangent in pair]
            blocks += pair
        return torch.cat(blocks, dim=1)


def linearized(network: ScoreNetwork, powers: int = 1, elementwise: bool = False) -> ScoreNetwork:
    """The network of CLD with products of its derivative along v, for the solver `sscs_exact`.

    powers       of the derivative, 1 to 7. 1 is enough for second order; more make the score part of a
                 long step exact where the score is nearly linear in v
    elementwise  the module returns [o, do/dv] on the channel axis; else it is differentiated

    Raises ValueError where the network is none of CLD, or is linearized already.
    """
    about, rule = network.parameterisation, network.parameterisation.rule
    if not isinstance(rule, Velocity) or rule.powers:
        raise ValueError(
            f"linearized takes a network of CLD that returns its score alone, and this one predicts "
            f"{about.prediction!r}"
        )
    wanted = "give 1 to 7, each of which is two of a row's 16 outputs"
    if checks.whole("powers", powers, 1, wanted) > 7:
        raise ValueError(f"powers={powers}: {wanted}")
    return network.with_module(
        Linearized(network.module, powers, elementwise),
        prediction=replace(rule, powers=powers),
        inference=elementwise and network.inference,
    )
