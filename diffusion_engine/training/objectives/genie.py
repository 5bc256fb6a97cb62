"""The loss that distils d eps / dg into GENIE's head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...genie import attach, exact_derivative, natural
from ...genie.attach import Attached
from ...genie.exact import ExactDerivative
from ...networks.network import Condition, ScoreNetwork, arguments
from ...processes.levels import Levels, per_sample
from ...zoo import config, load_network
from ..data import Batch
from .base import Given, Objective, Turn, adam
from .denoising import dropped
from .times import times

FED = ("true", "predicted")


class HeadLoss:
    """Mean of g^2 |k_psi - d eps / dg|^2 over t ~ U(t_min, t_max) (Dockhorn et al. 2022, section 3.2).

    k_psi = -k1 / g + g / (1 + g^2) k2 + k3 / (g (1 + g^2)) of the head, g = sigma / alpha, at states
    x = alpha x0 + sigma noise. The target is the derivative of the frozen network along its own ODE; no
    gradient reaches the network.

    network  made by genie.attach, in eval mode and float32; its head trains
    eps      what the head is given as the noise in x: "true" the one that was drawn, as published, or
             "predicted" the network's estimate, which it is given when it samples. On the digits
             network (600 steps, span 0.2) the second had 3 % less loss when sampling and samples up to 4 %
             farther from the ODE's solution, so that the published one is kept
    span     0: the target is one Jacobian-vector product, as published. Above 0: the central difference
             of eps over g (1 - span) to g (1 + span), less far where the process ends. A network whose
             time embedding oscillates has a derivative in t that says nothing about its eps a step on;
             the difference averages it out

    Raises ValueError where the network has no attached head or no derivative in time, or an option is wrong.
    """

    def __init__(self, network: ScoreNetwork, eps: str = "true", span: float = 0.0) -> None:
        if not isinstance(network.module, Attached):
            raise ValueError(f"{network.name!r} has no head to train; attach one with genie.attach")
        if eps not in FED:
            raise ValueError(f"eps={eps!r}: the head is given the 'true' noise or the 'predicted'")
        if not 0.0 <= span < 1.0:
            raise ValueError(f"span={span!r}: a share of g, 0 for the derivative itself, below 1")
        exact = exact_derivative(network.module.network).module
        assert isinstance(exact, ExactDerivative)
        self.network, self.module, self.exact = network, network.module, exact
        self.eps, self.span = eps, span

    def __call__(
        self, x0: Tensor, generator: torch.Generator, condition: Condition | None = None
    ) -> Tensor:
        """The loss of data x0 [B, C, *pixel] float32, a scalar that can be differentiated.

        generator  source of the times and the noise, on the CPU
        condition  of each entry as the network takes it, the null condition of some where it is guided
        """
        process, base = self.network.process, self.module.network
        t = times(process, len(x0), generator).to(x0.device)
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        unnamed, named = arguments(condition)
        with torch.no_grad():
            at = Levels.of(process, t)
            x = per_sample(at.alpha, x0) * x0 + per_sample(at.sigma, x0) * noise
            _, scaled, label = natural.inputs(base, x, t)
            out, features, embedding = self.module.watched(scaled, label, *unnamed, **named)
            found = natural.eps(base, at, x, out)
            slope = self.slope(found, x, at, condition)
        k = self.module.head(scaled, noise if self.eps == "true" else found, features, embedding)
        weights = self.network.parameterisation.slope_weights(at)[1:]
        error = -slope
        for weight, block in zip(weights, k.chunk(3, dim=1), strict=True):
            error = error + per_sample(weight, block) * block
        return (per_sample(at.ratio, error) * error).square().mean()

    def slope(self, eps: Tensor, x: Tensor, at: Levels, condition: Condition | None) -> Tensor:
        """d eps / dg of states x whose eps is known."""
        if self.span == 0.0:
            return self.exact.along(eps, x, at.t, condition)[1]
        high, low = (self.beside(at, share) for share in (1.0 + self.span, 1.0 - self.span))
        # Both ends lie on the tangent of the ODE: x_bar moves by eps as g does.
        there, back = (
            self.exact.eps(
                per_sample(end.alpha / at.alpha, x) * x
                + per_sample(end.alpha * (end.ratio - at.ratio), x) * eps,
                end.t,
                condition,
            )
            for end in (high, low)
        )
        return (there - back) / per_sample(high.ratio - low.ratio, x)

    def beside(self, at: Levels, share: float) -> Levels:
        """The levels of `share` times the g of those."""
        process = self.network.process
        t = process.t_of_lam(-np.log(share * at.ratio.cpu().numpy()))
        inside = np.clip(t, process.t_min, process.t_max)
        return Levels.of(process, torch.as_tensor(inside, dtype=torch.float64, device=at.t.device))


class GenieHead(Objective):
    """Of a recipe whose card names a base: the head that is attached to it.

    drop  probability that a class is replaced by the base's null
    eps, span  see HeadLoss
    """

    def __init__(
        self, given: Given, drop: float = 0.25, eps: str = "true", span: float = 0.0
    ) -> None:
        self.given, self.drop = given, drop
        base = given.recipe.card["base"]
        self.base = load_network(base["name"], given.device)
        self.head_loss = HeadLoss(
            attach(self.base, given.module, feature=base["feature"], embedding=base["embedding"]),
            eps,
            span,
        )

    def turns(self) -> list[Turn]:
        return [Turn("loss", self.given.module.parameters(), self.loss, optimizer=adam)]

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        y = dropped(self.base, batch.y, self.drop, generator)
        return self.head_loss(batch.x0, generator, y)

    def after(self, steps: int, average: nn.Module) -> dict[str, Any]:
        base = self.given.recipe.card["base"]
        return {"base": base | {"sha256": config(base["name"])["sha256"]}}
