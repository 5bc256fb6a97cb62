"""Score matching of a student to its teacher's guided prediction, which it then makes in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ... import checks
from ...genie import natural
from ...networks.network import Condition, ScoreNetwork
from ...processes.levels import Levels, per_sample
from ..data import Batch
from .base import Given, Objective, Turn
from .denoising import WEIGHTS, dropped, noised, told
from .teachers import denoised, output, predicted, same_process, scale, scales
from .times import drawn_times


class Student(Objective):
    """Mean of w(t) |o - o_teacher|^2 at noised data, o_teacher the guided prediction of a frozen teacher,
    which may be a larger network or predict something else (Dockhorn et al., CVPR-W 2023).

    guidance  scale s of the teacher, which the student then has within it: one call a step
    weight    of the squared error of the output, as in `denoising`
    times     their law, see `drawn_times`
    drop      probability that a class is replaced by the null

    Raises ValueError where one makes no sense, or the teacher is of another process.
    """

    def __init__(
        self,
        given: Given,
        guidance: float = 1.0,
        weight: str = "output",
        times: dict[str, Any] | None = None,
        drop: float = 0.1,
    ) -> None:
        self.given, self.times, self.drop = given, times, drop
        self.guidance = scale("guidance", guidance)
        self.weight = WEIGHTS[checks.one_of("weight", weight, tuple(WEIGHTS))]
        same_process(given.network, given.teacher)

    def turns(self) -> list[Turn]:
        return [Turn("loss", self.given.module.parameters(), self.loss)]

    def scales(self, y: Tensor, generator: torch.Generator) -> tuple[float | Tensor, Condition]:
        """The guidance scale of each sample, and what the student is told of it and of the class."""
        return self.guidance, y

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        network, teacher = self.given.network, self.given.teacher
        x0, y = batch
        t = drawn_times(network.process, len(x0), generator, self.times).to(x0.device)
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        y = dropped(network, y, self.drop, generator)
        guidance, condition = self.scales(y, generator)
        at = Levels.of(network.process, t)
        x = noised(x0, at, eps)
        with torch.no_grad():
            wanted = denoised(teacher, x, t, predicted(teacher, x, t, y, guidance))
        _, scaled, label = natural.inputs(network, x, t)
        error = network(scaled, label, condition)[0] - output(network, x, t, wanted)
        _, q = network.parameterisation.weights(at)
        return (per_sample(self.weight(at, q), error) * error.square()).mean()

    def after(self, steps: int, average: nn.Module) -> dict[str, Any]:
        """Of both networks, after any number of steps, the floating-point operations of one call, of which a
        guided teacher makes two; they do not depend on the average."""
        own, teachers = flops(self.given.network), flops(self.given.teacher)
        return {"figures": {"flops_of_a_call": own, "flops_of_a_call_of_the_teacher": teachers}}


def flops(network: ScoreNetwork) -> int:
    """Floating-point operations of a call for one sample, two a multiplication and addition."""
    module = network.module
    where = next(module.parameters()).device if isinstance(module, nn.Module) else "cpu"
    x = torch.zeros(1, *network.state_shape, device=where)
    t = torch.full((1,), network.process.t_max, dtype=torch.float64, device=where)
    told = {} if network.scale_input is None else network.scale_input(torch.ones(1, device=where))
    y = torch.zeros(1, dtype=torch.int64, device=where)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _, scaled, label = natural.inputs(network, x, t)
        network(scaled, label, {"": y, **told})
    return counter.get_total_flops()


class Guided(Student):
    """As `Student`, at scales drawn evenly from a range, of which the student is told: guidance distillation
    (Meng et al. 2023, eq. 3, whose w is s - 1). The card names how it is told, its scale_input.

    guidance  the range (low, high) of s

    Raises ValueError where the card names no scale_input, or the range is none.
    """

    def __init__(
        self,
        given: Given,
        guidance: Sequence[float] = (1.0, 4.0),
        weight: str = "output",
        times: dict[str, Any] | None = None,
        drop: float = 0.1,
    ) -> None:
        super().__init__(given, weight=weight, times=times, drop=drop)
        self.range = checks.pair("guidance", guidance, "give a range (low, high) of scales")
        if given.network.scale_input is None:
            raise ValueError(
                f"the card of {given.recipe.name!r} does not say how the network is told its scale; give it "
                "a scale_input"
            )

    def scales(self, y: Tensor, generator: torch.Generator) -> tuple[float | Tensor, Condition]:
        s = scales(*self.range, len(y), generator).to(y.device)
        condition = told(self.given.network, y, s)
        assert condition is not None, "a network that is told its scale has one"
        return s, condition
