"""Consistency distillation, and consistency training without a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ... import checks
from ...processes.levels import Levels, per_sample
from ..data import Batch
from .base import Given, Objective, Turn
from .denoising import dropped, noised
from .teachers import Follower, denoised, interval, predicted, same_process, scale, scales, walked
from .times import spread


def huber(error: Tensor) -> Tensor:
    """sqrt(|e|^2 + c^2) - c of each sample, c = 0.00054 sqrt(dimension) (Song & Dhariwal 2024, eq. 8)."""
    square = error.flatten(1).square().sum(1)
    c = 0.00054 * math.sqrt(error[0].numel())
    return (square + c * c).sqrt() - c


def l2(error: Tensor) -> Tensor:
    """Mean square of each sample."""
    return error.flatten(1).square().mean(1)


METRICS: dict[str, Callable[[Tensor], Tensor]] = {"huber": huber, "l2": l2}


class Consistency(Objective):
    """Mean of d(f(x_s, s), f_target(x_t, t)) over adjacent times s > t of a grid: f(x, t), the network's
    estimate of x0, learns to be the same along each path to noise (Song et al. 2023, algorithms 2 and 3).

    x_s = alpha x0 + sigma eps. With a teacher x_t is where its deterministic step leads from x_s
    (distillation); without, it is x0 and the same eps at t (training). The grid is even in t, and
    f(x, 0) = x, as it is for whatever predicts a velocity or noise.

    points      intervals of the grid, 1 or more; several numbers are stages of equal length, so that it grows
    guidance    scale s of the teacher, which the network then has within it; or a range (low, high) of it,
                of which each sample draws one, for a network that is told its scale (Luo et al. 2023)
    calls       steps of the teacher between two times
    metric      d: "huber" or "l2"
    target_ema  decay of the averaged network that is the target, in [0, 1); 0 is the network itself
    drop        probability that a class is replaced by the null

    Raises ValueError where one makes no sense, or the teacher is of another process.
    """

    def __init__(
        self,
        given: Given,
        points: int | Sequence[int] = 16,
        guidance: float | Sequence[float] = 1.0,
        calls: int = 1,
        metric: str = "huber",
        target_ema: float = 0.95,
        drop: float = 0.1,
    ) -> None:
        self.given, self.drop = given, drop
        self.metric = METRICS[checks.one_of("metric", metric, tuple(METRICS))]
        stages = points if isinstance(points, (list, tuple)) else [points]
        self.stages = [
            checks.whole("points", n, 1, "a grid has 1 interval or more") for n in stages
        ]
        self.calls = checks.whole("calls", calls, 1, "the teacher makes 1 step or more")
        if not self.stages:
            raise ValueError(
                "points=[]: give the intervals of the grid, 16, or of each stage, [8, 16]"
            )
        self.guidance = _scales(given, guidance)
        self.teacher = None if given.recipe.teacher is None else given.teacher
        if self.teacher is not None:
            same_process(given.network, self.teacher)
        self.average = Follower(given, target_ema)
        self.count = self.stages[0]

    def turns(self) -> list[Turn]:
        return [Turn("loss", self.given.module.parameters(), self.loss)]

    def modules(self) -> dict[str, nn.Module]:
        return {"target": self.average.module}

    def before(self, step: int, average: nn.Module) -> None:
        self.count = self.stages[step * len(self.stages) // self.given.recipe.steps]
        self.average.follow(self.given.module)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        network = self.given.network
        x0, y = batch
        k = (self.count * spread(len(x0), generator)).floor().to(x0.device)
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        y = dropped(network, y, self.drop, generator)
        low, high = self.guidance
        guidance = low if low == high else scales(low, high, len(x0), generator).to(x0.device)
        s, t = interval(network.process, k, self.count)
        x_s = noised(x0, Levels.of(network.process, s), eps)
        if self.teacher is None:
            x_t = noised(x0, Levels.of(network.process, t), eps)
        else:
            x_t = walked(self.teacher, x_s, s, t, y, guidance, self.calls)
        own = 1.0 if network.scale_input is None else guidance
        with torch.no_grad():
            target = denoised(network, x_t, t, predicted(self.average.network, x_t, t, y, own))
            target = torch.where(per_sample(t, x0) == 0.0, x_t, target)
        made = denoised(network, x_s, s, predicted(network, x_s, s, y, own))
        return self.metric(made - target).mean()


def _scales(given: Given, guidance: Any) -> tuple[float, float]:
    """The range of scales, of one number it alone. Raises ValueError."""
    if not isinstance(guidance, (list, tuple)):
        return (scale("guidance", guidance),) * 2
    if given.network.scale_input is None:
        raise ValueError(
            f"guidance={guidance}: the card of {given.recipe.name!r} does not say how its network is told "
            "its scale; give it a scale_input, or one scale"
        )
    return checks.pair("guidance", guidance, "give a range (low, high) of scales", least=0.0)
