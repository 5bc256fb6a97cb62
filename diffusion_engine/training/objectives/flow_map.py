"""Networks of whole steps u(z, t, r) = (z_t - z_r) / (t - r) on flow matching: MeanFlow, shortcut models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ... import checks
from ...genie.exact import PlainNorms
from ...networks.forward import turn
from ...networks.network import ScoreNetwork
from ...processes import FlowMatching
from ...processes.levels import Levels, per_sample
from ..data import Batch
from .base import Given, Objective, Turn
from .denoising import dropped, noised, told
from .teachers import Follower, predicted, same_process, scale
from .times import drawn_times


def average_velocity(network: ScoreNetwork, z: Tensor, t: Tensor, r: Tensor, y: Tensor) -> Tensor:
    """u(z, t, r) of a network that is told both ends of its step; t and r [B] float64, r the cleaner one."""
    label, condition = network.label_dtype, told(network, y)
    return network(z, t.to(label), condition, end_label=r.to(label))[0]


def total_derivative(
    network: ScoreNetwork, z: Tensor, t: Tensor, r: Tensor, y: Tensor, v: Tensor
) -> Tensor:
    """du/dt along the path, r being fixed: one Jacobian-vector product, with the tangents (v, 1) of (z, t)
    (Geng et al. 2025, eq. 8)."""
    with turn(), sdpa_kernel(SDPBackend.MATH), PlainNorms():  # see genie.exact
        return torch.func.jvp(  # type: ignore[misc, no-any-return]
            lambda z, t: average_velocity(network, z, t, r, y), (z, t), (v, torch.ones_like(t))
        )[1]


class FlowMap(Objective, ABC):
    """What both have in common: some samples have r = t, where u is the velocity itself, and the others jump.

    With a teacher the velocity is its own, guided, else eps - x0.

    same      share of samples with r = t, between 0 and 1
    guidance  scale of the teacher, which the network then has within it
    power     p of the weight 1 / (|e|^2 + 1e-3)^p of each sample's squared error, without a gradient of its
              own (Geng et al. 2025, eq. 22)
    times     law of the times with r = t, see `drawn_times`
    drop      probability that a class is replaced by the null

    Raises ValueError where one makes no sense, or the network is of another process or told one time only.
    """

    def __init__(
        self,
        given: Given,
        same: float = 0.5,
        guidance: float = 1.0,
        power: float = 1.0,
        times: dict[str, Any] | None = None,
        drop: float = 0.1,
    ) -> None:
        self.given, self.times, self.drop = given, times, drop
        self.guidance, self.power = scale("guidance", guidance), checks.number("power", power)
        self.same = checks.number("same", same)
        if not 0.0 <= self.same <= 1.0:
            raise ValueError(f"same={same}: a share of the samples lies between 0 and 1")
        about = given.network.parameterisation
        told = (about.prediction, about.label, about.end_label)
        if not isinstance(about.process, FlowMatching) or told != ("flow", "t", "t"):
            raise ValueError(
                f"the network of {given.recipe.name!r} is on {about.process} with (prediction, label, "
                f"end_label) = {told}; a flow map is on flow matching with ('flow', 't', 't')"
            )
        self.teacher = None if given.recipe.teacher is None else given.teacher
        if self.teacher is not None:
            same_process(given.network, self.teacher)

    def turns(self) -> list[Turn]:
        return [Turn("loss", self.given.module.parameters(), self.loss)]

    @abstractmethod
    def ends(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Times t > r of n jumps."""

    @abstractmethod
    def jumps(self, z: Tensor, t: Tensor, r: Tensor, y: Tensor, exact: Tensor) -> Tensor:
        """What u(z, t, r) learns of jumps, whose samples have the velocity `exact`."""

    def velocity(self, z: Tensor, t: Tensor, y: Tensor, exact: Tensor) -> Tensor:
        """The teacher's at z, or the samples' own."""
        return exact if self.teacher is None else predicted(self.teacher, z, t, y, self.guidance)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        network, n = self.given.network, len(batch.y)
        still = round(self.same * n)
        t, r = self.ends(n - still, generator)
        there = drawn_times(network.process, still, generator, self.times)
        t, r = (torch.cat((there, one)).to(batch.x0.device) for one in (t, r))
        eps = torch.randn(batch.x0.shape, generator=generator, dtype=batch.x0.dtype)
        eps, y = eps.to(batch.x0.device), batch.y
        y = dropped(network, y, self.drop, generator)
        z = noised(batch.x0, Levels.of(network.process, t), eps)
        parts = [(each[:still], each[still:]) for each in (z, t, r, y, eps - batch.x0)]
        (z0, z1), (t0, t1), (_, r1), (y0, y1), (exact0, exact1) = parts
        with torch.no_grad():
            of_still = self.velocity(z0, t0, y0, exact0)
            wanted = torch.cat((of_still, self.jumps(z1, t1, r1, y1, exact1)))
        square = (average_velocity(network, z, t, r, y) - wanted).square().flatten(1).sum(1)
        weight = (square.detach() + 1e-3) ** -self.power
        return (weight * square).mean()


class MeanFlow(FlowMap):
    """u(z, t, r) learns v - (t - r) du/dt, both sides of which are equal for the average velocity between r
    and t (Geng et al. 2025, eq. 6); t and r are drawn by the law `times`, and put in order.

    The options are those of FlowMap: same, guidance, power, times, drop.
    """

    def ends(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        process, shuffled = self.given.network.process, torch.randperm(n, generator=generator)
        a = drawn_times(process, n, generator, self.times)
        b = drawn_times(process, n, generator, self.times)[shuffled]
        return torch.maximum(a, b), torch.minimum(a, b)

    def jumps(self, z: Tensor, t: Tensor, r: Tensor, y: Tensor, exact: Tensor) -> Tensor:
        v = self.velocity(z, t, y, exact)
        slope = total_derivative(self.given.network, z, t, r, y, v)
        return v - per_sample(t - r, z) * slope


class Shortcut(FlowMap):
    """One jump learns to land where two half as long do, those of the averaged network (Frans et al. 2025,
    eq. 5). Jumps are 1, 1/2, 1/4, ... of the whole time, each as often, and begin at multiples of
    themselves.

    levels      how many lengths there are; the halves of the shortest are made by the velocity, at r = t
    target_ema  decay of the averaged network, in [0, 1); 0 is the network itself

    The other options are those of FlowMap.
    """

    def __init__(
        self,
        given: Given,
        levels: int = 4,
        target_ema: float = 0.95,
        same: float = 0.25,
        guidance: float = 1.0,
        power: float = 1.0,
        times: dict[str, Any] | None = None,
        drop: float = 0.1,
    ) -> None:
        super().__init__(given, same, guidance, power, times, drop)
        self.levels = checks.whole("levels", levels, 1, "there is 1 length of a jump or more")
        self.average = Follower(given, target_ema)

    def modules(self) -> dict[str, nn.Module]:
        return {"target": self.average.module}

    def before(self, step: int, average: nn.Module) -> None:
        self.average.follow(self.given.module)

    def ends(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        whole = self.given.network.process.t_max
        level = torch.randint(self.levels, (n,), generator=generator)
        parts = 2.0 ** level.double()
        first = (parts * torch.rand(n, dtype=torch.float64, generator=generator)).floor()
        return whole * (first + 1.0) / parts, whole * first / parts

    def jumps(self, z: Tensor, t: Tensor, r: Tensor, y: Tensor, exact: Tensor) -> Tensor:
        network, middle = self.average.network, 0.5 * (t + r)
        shortest = t - middle < 1.5 * network.process.t_max / 2**self.levels
        u = average_velocity(network, z, t, torch.where(shortest, t, middle), y)
        half = z - per_sample(t - middle, z) * u
        end = torch.where(shortest, middle, r)
        return 0.5 * (u + average_velocity(network, half, middle, end, y))
