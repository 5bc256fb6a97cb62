"""Runs of a learned table that torch differentiates, through the network, by its levels and weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import checks
from ..genie import natural
from ..networks.condition import null_like
from ..networks.network import ScoreNetwork
from ..ops.philox import normals
from ..processes.levels import per_sample


@dataclass(frozen=True, eq=False)
class Runs:
    """Samples of a network from given first states.

    guidance  classifier-free scale, 1 for none
    """

    network: ScoreNetwork
    guidance: float = 1.0

    def __post_init__(self) -> None:
        about = self.network.parameterisation
        if not self.network.label_dtype.is_floating_point:
            raise ValueError(
                f"label_dtype={self.network.label_dtype}: times that are learned are no whole numbers; give "
                "the ScoreNetwork label_dtype=torch.float32 if the module takes fractions"
            )
        natural.check(self.network)
        if about.process.parts > 1:
            raise ValueError(
                "a table moves x alone, and CLD's state is [x, v]: tune another network"
            )
        checks.number("guidance", self.guidance)
        if self.guidance != 1.0 and (self.network.null is None or about.reads_scale):
            raise ValueError(
                f"guidance={self.guidance:g} needs an unconditional branch and the network has none; give "
                "ScoreNetwork its null condition"
            )

    def ends(self, x: Tensor, condition: Tensor | None, t: Tensor, states: Tensor) -> Tensor:
        """The last state [n, *shape] from x, differentiable in t and states; families.py has the two."""
        weights, past = states.to(x.dtype), [x]
        for i, time in enumerate(t):
            past.append(self.denoised(_mixed(weights[i], past), time, condition))
        return _mixed(weights[-1], past)

    def denoised(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """The guided and clipped estimate of x0, as a row has it."""
        about, s = self.network.parameterisation, self.guidance
        if s == 1.0 or condition is None:
            made = self._estimate(x, t, condition)
        else:
            null = null_like(self.network, condition, x.dtype)
            both = torch.cat((condition, null.to(condition)))  # type: ignore[union-attr]
            guided, plain = self._estimate(torch.cat((x, x)), t, both).chunk(2)
            made = (1.0 - s) * plain + s * guided
        return made if about.clip is None else made.clamp(*about.clip)

    def _estimate(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        at, scaled, label = natural.inputs(self.network, x, t.expand(len(x)))
        out = self.network(scaled, label, condition)[0]
        (p,), q = self.network.parameterisation.weights(at)
        return per_sample(p, x) * x + per_sample(q, x) * out[:, : x.shape[1]]

    def first(self, seeds: list[int]) -> Tensor:
        """The states that runs of these seeds begin with."""
        process, shape = self.network.process, self.network.shape
        z = normals(
            torch.tensor(seeds), torch.zeros(len(seeds), dtype=torch.int64), 0, _count(shape)
        )
        return z.view(-1, *shape) * process.prior_std(process.noisiest)


def _mixed(weights: Tensor, past: list[Tensor]) -> Tensor:
    terms = [weight * state for weight, state in zip(weights, past, strict=False)]
    return torch.stack(terms).sum(0)


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
