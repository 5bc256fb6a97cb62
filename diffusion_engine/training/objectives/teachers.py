"""What a network says of a noised image, with guidance, and where its deterministic steps lead."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...genie import natural
from ...networks.network import ScoreNetwork
from ...processes import GaussianProcess
from ...processes.levels import Levels, per_sample
from .base import Given
from .denoising import null_of, told
from .times import spread


def predicted(
    network: ScoreNetwork, x: Tensor, t: Tensor, y: Tensor, guidance: float | Tensor = 1.0
) -> Tensor:
    """(1 - s) o(x, t, null) + s o(x, t, y) of a network's output o, in one call of both (Ho & Salimans 2022);
    or o(x, t, y, s) of one that is told its scale.

    Args:
        network: trained with and without a condition, where s is not 1.
        x: [B, C, H, W], states alpha x0 + sigma eps.
        t: [B] float64, their times.
        y: [B, ...] conditions; of the null one the result is o(x, t, null).
        guidance: s, a number or one a sample [B]; 1 is the condition alone.

    Raises:
        ValueError: there is no null condition to guide from.
    """
    if network.scale_input is not None:
        guidance = torch.as_tensor(guidance, dtype=torch.float64, device=x.device).expand(len(x))
        return network(*natural.inputs(network, x, t)[1:], told(network, y, guidance))[0]
    if not isinstance(guidance, Tensor) and guidance == 1.0:
        return network(*natural.inputs(network, x, t)[1:], told(network, y))[0]
    _, scaled, label = natural.inputs(network, torch.cat((x, x)), torch.cat((t, t)))
    both = torch.cat((y, null_of(network, y)))
    with_condition, without = network(scaled, label, both)[0].chunk(2)
    return without + per_sample(guidance, x) * (with_condition - without)


def denoised(network: ScoreNetwork, x: Tensor, t: Tensor, out: Tensor) -> Tensor:
    """x0 = p x + q o of states x at times t and the network's output o there."""
    (p,), q = network.parameterisation.weights(Levels.of(network.process, t))
    return per_sample(p, x) * x + per_sample(q, x) * out


def output(network: ScoreNetwork, x: Tensor, t: Tensor, x0: Tensor) -> Tensor:
    """o = (x0 - p x) / q: the output whose estimate of x0 is that one."""
    (p,), q = network.parameterisation.weights(Levels.of(network.process, t))
    return (x0 - per_sample(p, x) * x) / per_sample(q, x)


def ddim(process: GaussianProcess, x: Tensor, x0: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """x_t = sigma_t / sigma_s x_s + (alpha_t - alpha_s sigma_t / sigma_s) x0 (Song et al. 2021, eq. 12), on
    flow matching Euler's step; s and t [B] float64, the noisier time first."""
    from_, to = Levels.of(process, s), Levels.of(process, t)
    shrink = to.sigma / from_.sigma
    return per_sample(shrink, x) * x + per_sample(to.alpha - from_.alpha * shrink, x) * x0


def landing(process: GaussianProcess, x: Tensor, end: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The x0 with which one `ddim` step goes from x at s to `end` at t (Salimans & Ho 2022, algorithm 2)."""
    from_, to = Levels.of(process, s), Levels.of(process, t)
    shrink = to.sigma / from_.sigma
    return (end - per_sample(shrink, x) * x) / per_sample(to.alpha - from_.alpha * shrink, x)


@torch.no_grad()
def walked(
    network: ScoreNetwork,
    x: Tensor,
    s: Tensor,
    t: Tensor,
    y: Tensor,
    guidance: float | Tensor = 1.0,
    steps: int = 1,
) -> Tensor:
    """Where `steps` of `ddim`, evenly spaced in time, lead a network from x at times s to times t."""
    for i in range(steps):
        at, to = s + (t - s) * (i / steps), s + (t - s) * ((i + 1) / steps)
        x0 = denoised(network, x, at, predicted(network, x, at, y, guidance))
        x = ddim(network.process, x, x0, at, to)
    return x


def interval(process: GaussianProcess, k: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The k-th of n equal intervals from clean data at t = 0 to t_max: its noisier end, then the other. They
    are the steps of the grid "simple"."""
    return process.t_max * (k + 1.0) / n, process.t_max * k / n


def same_process(student: ScoreNetwork, teacher: ScoreNetwork) -> None:
    """Raises ValueError where a teacher's noise is not the student's, whatever their range of times, or its
    images or classes are others."""
    if teacher.shape != student.shape or len({teacher.classes, student.classes} - {None}) > 1:
        raise ValueError(
            f"the teacher {teacher.name!r} is of {teacher.classes} classes and the shape "
            f"{list(teacher.shape)}, and {student.name!r} of {student.classes} and {list(student.shape)}; "
            "give a teacher of the same"
        )
    if not _alike(student.process, teacher.process):
        raise ValueError(
            f"the teacher {teacher.name!r} was trained on {teacher.process} and {student.name!r} is on "
            f"{student.process}; give both the same process"
        )


def _alike(own: GaussianProcess, other: GaussianProcess) -> bool:
    if type(own) is not type(other):
        return False
    try:
        return bool(replace(own, t_min=other.t_min, t_max=other.t_max) == other)
    except ValueError:  # a table of another length
        return False


def scale(name: str, value: Any) -> float:
    """A guidance scale as a number. Raises ValueError."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.0 <= value < 1e3:
        raise ValueError(f"{name}={value!r}: a guidance scale is a number of 0 or more, 1 for none")
    return float(value)


def scales(low: float, high: float, n: int, generator: torch.Generator) -> Tensor:
    """n guidance scales of a range, [n] float64: evenly spread, and in another order than the times."""
    drawn = spread(n, generator)[torch.randperm(n, generator=generator)]
    return low + (high - low) * drawn


class Follower:
    """An averaged copy of the network that trains, the target of its own loss.

    decay  of the average, in [0, 1); 0 is the network as it is

    Raises ValueError where the decay is none.
    """

    def __init__(self, given: Given, decay: float) -> None:
        if not isinstance(decay, (int, float)) or not 0.0 <= decay < 1.0:
            raise ValueError(f"target_ema={decay!r}: a decay of 0 or more, below 1")
        self.decay = float(decay)
        self.module = copy.deepcopy(given.module).requires_grad_(False)
        self.network = given.network.with_module(self.module)

    @torch.no_grad()
    def follow(self, module: nn.Module) -> None:
        """One step towards the module's weights."""
        for kept, now in zip(self.module.parameters(), module.parameters(), strict=True):
            kept.lerp_(now, 1.0 - self.decay)
