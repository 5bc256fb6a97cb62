"""Modules of the user's that are called as GENIE calls its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ... import checks
from ...networks.network import ScoreNetwork
from ...processes import VP


@dataclass(frozen=True)
class Times:
    """The label M t."""

    m: float

    def __call__(self, at: Any) -> Any:
        return self.m * at.t


class Called(nn.Module):
    """module(x, M t, y) -> (out, xemb, temb) and genie_model(x, t, eps, xemb, temb) -> d eps / dg, as one
    module of (x, t, y) that returns out, and d eps / dg behind it."""

    def __init__(
        self,
        module: Callable[..., Any],
        genie_model: Callable[..., Any] | None,
        pred: str,
        m: float,
        process: VP,
    ) -> None:
        super().__init__()
        self.module, self.genie_model, self.pred, self.m = module, genie_model, pred, m
        self.rates = process.beta_min, process.beta_max - process.beta_min
        self.training = getattr(module, "training", False)

    def forward(
        self, x: Tensor, t: Tensor, *y: Tensor, **named: Tensor
    ) -> Tensor | tuple[Tensor, ...]:
        if "low" in named:  # of an upsampler
            named["context"] = (named.pop("low"), named.pop("level"))  # type: ignore[assignment]
        out, features, embedding = self.module(x, self.m * t, *y, **named)
        if self.genie_model is None:
            return out
        eps = out if self.pred == "eps" else eps_of_v(out, x, t, self.rates)
        seen = {"context": named["context"]} if "context" in named else {}
        return out, self.genie_model(x, t, eps, features, embedding, **seen)


def eps_of_v(v: Tensor, x: Tensor, t: Tensor, rates: tuple[float, float]) -> Tensor:
    """alpha v + sigma x of VP at times t."""
    b0, slope = rates
    log_alpha = (-0.5 * (b0 * t + 0.5 * slope * t**2)).view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
    return log_alpha.exp() * v + torch.sqrt(-torch.expm1(2.0 * log_alpha)) * x


def genie_network(
    module: Callable[..., Any],
    shape: tuple[int, ...],
    genie_model: Callable[..., Any] | None = None,
    *,
    pred: str = "eps",
    M: float = 999.0,
    beta_min: float = 0.1,
    beta_d: float = 19.9,
    **options: Any,
) -> ScoreNetwork:
    """A module of yours that is called as GENIE calls its own: model(x, M t) or model(x, M t, y).

    module       returns (output, xemb, temb): its prediction, its last feature map and its time embedding. An
                 upsampler is given context=(low, level) where the condition is {"low": ..., "level": ...}
    shape        of an image, (channels, height, width)
    genie_model  the trained head, genie_model(x, t, eps, xemb, temb) -> d eps / dg, for the solver 'genie';
                 None without one
    pred         what it predicts, "eps" or "v" = alpha eps - sigma x0
    M            its label is M t: 999 of the CIFAR-10 network, 1 of all others
    beta_min, beta_d  beta(t) = beta_min + beta_d t
    options      of ScoreNetwork
    """
    checks.one_of("pred", pred, ("eps", "v"))
    process = VP(beta_min=beta_min, beta_max=beta_min + beta_d)
    called = Called(module, genie_model, pred, checks.number("M", M), process)
    law: dict[str, Any] = {"prediction": pred, "label": "t", "name": "genie"}
    law |= {"derivative": "exact"} if genie_model is not None else {}
    return ScoreNetwork(called, process, shape, **(law | options))
