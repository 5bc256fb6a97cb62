"""A network and the gradient of a classifier in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .network import Condition, ScoreNetwork, gathered


class Classified(nn.Module):
    """The module of `with_classifier`: it returns the prediction and grad log p(y | its input)."""

    def __init__(
        self, network: ScoreNetwork, classifier: Callable[..., Tensor], blocks: int,
        conditional: bool, key: str,
    ) -> None:  # fmt: skip
        super().__init__()
        # A plain function is an attribute; a module's weights move with this one.
        self.network, self.classifier = network, classifier
        if isinstance(network.module, nn.Module):
            self.module = network.module
        self.blocks, self.conditional, self.key = blocks, conditional, key

    def forward(
        self, x: Tensor, label: Tensor, condition: Condition | None = None, **named: Tensor
    ) -> tuple[Tensor, ...]:
        given = gathered(condition, named)
        outs = self.predict(x, label, given)
        found = sum(out.shape[1] for out in outs) // x.shape[1]
        if found != self.blocks:
            raise ValueError(
                f"the network returned {found} channel blocks and with_classifier expected {self.blocks}; "
                f"say with_classifier(..., blocks={found})"
            )
        return (*outs, self.gradient(x, label, given))

    def predict(self, x: Tensor, label: Tensor, condition: Condition | None) -> tuple[Tensor, ...]:
        """The network's own outputs."""
        return self.network(x, label, condition if self.conditional else None)

    def gradient(
        self, x: Tensor, label: Tensor, condition: Condition | None, functional: bool = False
    ) -> Tensor:
        """grad log p(y | x), [N, C, *pixel] like x.

        functional  by torch.func, which a derivative can be taken of but fewer modules are written for
        """
        y = (
            condition.get(self.key, condition.get(""))
            if isinstance(condition, Mapping)
            else condition
        )
        if y is None:
            raise ValueError("a classifier guides to a class; give condition=")

        def log_p(x: Tensor) -> Tensor:
            logits = self.classifier(x, label)
            precise = torch.promote_types(logits.dtype, torch.float32)
            log_all, count = logits.log_softmax(dim=1, dtype=precise), logits.shape[1]
            # The null class of an unconditional branch is none of the classifier's: no gradient.
            chosen = log_all.gather(1, y.long().clamp(max=count - 1).view(-1, 1)).view(-1)
            return torch.where(y < count, chosen, 0.0).sum()

        if functional:
            return torch.func.grad(log_p)(x)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (found,) = torch.autograd.grad(log_p(leaf), leaf)
        # An expanded gradient has no memory of its own to point a kernel at.
        return found if found.stride() == x.stride() else torch.empty_like(x).copy_(found)


def with_classifier(
    network: ScoreNetwork,
    classifier: Callable[..., Tensor],
    *,
    blocks: int | None = None,
    conditional: bool | None = None,
    key: str = "y",
) -> ScoreNetwork:
    """What `ScoreNetwork.with_classifier` returns; it explains the rest.

    blocks       channel blocks of the network's own outputs; None is 1, 4 with heads, 2 with a variance
    conditional  whether the network itself is given the condition; None: where it has classes or a null
    key          the class among a condition's names, where it is a mapping
    """
    if network.latent:
        raise ValueError(f"{network.name!r} reads a latent: a generator's eps is none to guide")
    if network.gradient is not None:
        raise ValueError(f"the network {network.name!r} has a classifier already")
    if network.derivative == "exact":
        raise ValueError(
            "the exact derivative follows the guided ODE: add the classifier first, "
            "exact_derivative(network.with_classifier(classifier))"
        )
    if blocks is None:
        blocks = 4 if network.derivative == "heads" else 2 if network.variance else 1
    if conditional is None:
        conditional = network.classes is not None or network.null is not None
    module: Any = Classified(network, classifier, blocks, conditional, key)
    module.train(getattr(network.module, "training", False))
    return replace(network, module=module, gradient=blocks, inference=False)
