"""Progressive distillation: every round halves the steps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ... import checks
from ...processes.levels import Levels, per_sample
from ..data import Batch
from .base import Given, Objective, Turn
from .denoising import WEIGHTS, dropped, noised
from .teachers import interval, landing, output, predicted, same_process, scale, walked
from .times import spread


class Progressive(Objective):
    """One step of the student lands where two of the teacher's do (Salimans & Ho 2022, algorithm 2).

    A round's student makes n deterministic steps, evenly spaced in time, and its teacher twice as many. The
    first round's teacher is the recipe's; that of each other round is the averaged student of the one before,
    from whose weights the student goes on.

    rounds    n of each round, each half the one before; the rounds have the same number of training steps
    guidance  scale of the first teacher, which the students then have within them (Meng et al. 2023)
    weight    of the squared error of the output, as in `denoising`: "truncated_snr" as published on VP;
              "output" on flow matching, where it is the error of the velocity
    drop      probability that a class is replaced by the null

    Raises ValueError where the rounds do not halve, or the teacher is of another process.
    """

    def __init__(
        self,
        given: Given,
        rounds: Sequence[int] = (8, 4),
        guidance: float = 1.0,
        weight: str = "output",
        drop: float = 0.1,
    ) -> None:
        if not rounds or min(rounds) < 1 or any(a != 2 * b for a, b in pairwise(rounds)):
            raise ValueError(f"rounds={list(rounds)}: give steps that halve, as [8, 4, 2]")
        self.given, self.rounds, self.drop = given, tuple(rounds), drop
        self.guidance = scale("guidance", guidance)
        self.weight = WEIGHTS[checks.one_of("weight", weight, tuple(WEIGHTS))]
        same_process(given.network, given.teacher)
        self.kept = copy.deepcopy(given.module).requires_grad_(False)
        self.round, self.student = 0, given.network
        self.later = given.network.with_module(self.kept)

    def turns(self) -> list[Turn]:
        return [Turn("loss", self.given.module.parameters(), self.loss)]

    def modules(self) -> dict[str, nn.Module]:
        return {"teacher": self.kept}

    def round_of(self, step: int) -> int:
        """The round to which a training step belongs."""
        return step * len(self.rounds) // self.given.recipe.steps

    def before(self, step: int, average: nn.Module) -> None:
        self.round = self.round_of(step)
        if self.round != self.round_of(max(step - 1, 0)):
            for module in (self.kept, self.given.module):
                module.load_state_dict(average.state_dict())

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        network, process, n = self.student, self.student.process, self.rounds[self.round]
        x0, y = batch
        k = (n * spread(len(x0), generator)).floor().to(x0.device)
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        y = dropped(network, y, self.drop, generator)
        s, t = interval(process, k, n)
        at = Levels.of(process, s)
        x = noised(x0, at, eps)
        if self.round == 0:
            end = walked(self.given.teacher, x, s, t, y, self.guidance, steps=2)
        else:
            end = walked(self.later, x, s, t, y, steps=2)
        target = output(network, x, s, landing(process, x, end, s, t))
        error = predicted(network, x, s, y) - target
        _, q = network.parameterisation.weights(at)
        return (per_sample(self.weight(at, q), error) * error.square()).mean()
