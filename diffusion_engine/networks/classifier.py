"""A network and the gradient of a classifier in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from .condition import null_like
from .network import Condition, ScoreNetwork, gathered


class Classified(nn.Module):
    """The module of `with_classifier`: it returns the prediction and grad log p(y | its input)."""

    def __init__(
        self, network: ScoreNetwork, classifier: Callable[..., Tensor], channel_blocks: int,
        conditional: bool | Literal["null"], key: str,
    ) -> None:  # fmt: skip
        super().__init__()
        # A plain function is an attribute; a module's weights move with this one.
        self.network, self.classifier = network, classifier
        if isinstance(network.module, nn.Module):
            self.module = network.module
        self.channel_blocks, self.conditional, self.key = channel_blocks, conditional, key

    def forward(
        self, x: Tensor, label: Tensor, condition: Condition | None = None, **named: Tensor
    ) -> tuple[Tensor, ...]:
        given = gathered(condition, named)
        outs = self.predict(x, label, given)
        found = sum(out.shape[1] for out in outs) // x.shape[1]
        if found != self.channel_blocks:
            raise ValueError(
                f"the network returned {found} channel blocks and with_classifier expected "
                f"{self.channel_blocks}; "
                f"say with_classifier(..., channel_blocks={found})"
            )
        if given is None:  # nothing is guided, and no row reads a gradient
            return (*outs, torch.zeros_like(x))
        return (*outs, self.gradient(x, label, given))

    def predict(self, x: Tensor, label: Tensor, condition: Condition | None) -> tuple[Tensor, ...]:
        """The network's own outputs."""
        if self.conditional == "null":
            condition = self._null(x)
        return self.network(x, label, condition if self.conditional else None)

    def _null(self, x: Tensor) -> Condition | None:
        null = self.network.null
        if isinstance(null, int):  # filled on the device, as a graph captures it
            return torch.full((len(x),), null, dtype=torch.int64, device=x.device)
        return null_like(self.network, x, x.dtype)

    def gradient(
        self, x: Tensor, label: Tensor, condition: Condition | None, functional: bool = False
    ) -> Tensor:
        """grad log p(y | x), [N, C, *pixel] like x.

        functional  by torch.func, which a derivative can be taken of but fewer modules are written for
        """
        y, count = self._classes(condition), 0

        def log_p(x: Tensor) -> Tensor:
            nonlocal count
            logits = _checked(self.classifier(x, label), len(x))
            precise = torch.promote_types(logits.dtype, torch.float32)
            log_all, count = logits.log_softmax(dim=1, dtype=precise), logits.shape[1]
            chosen = log_all.gather(1, y.clamp(0, count - 1)[:, None])[:, 0]
            return torch.where(y < count, chosen, 0.0).sum()

        if functional:
            found = torch.func.grad(log_p)(x)
        else:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                total = log_p(leaf)
                if not total.requires_grad:
                    raise ValueError(
                        "the classifier's logits have no derivative with respect to x: it may not detach, "
                        "nor run under no_grad"
                    )
                (found,) = torch.autograd.grad(total, leaf)
        # The null class of an unconditional branch is none of the classifier's: no gradient. Any other that
        # it has not is a mistake, which nothing here waits to see: NaN flags the sample.
        null = self.network.null if isinstance(self.network.null, int) else -1
        unknown = (y < 0) | ((y >= count) & (y != null))
        found = found.masked_fill(unknown.view(-1, *[1] * (x.ndim - 1)), torch.nan)
        # A gradient of other strides has no memory that a kernel could be pointed at.
        return found if found.stride() == x.stride() else torch.empty_like(x).copy_(found)

    def _classes(self, condition: Condition | None) -> Tensor:
        """y [N] int64, out of a condition."""
        y = condition
        if isinstance(condition, Mapping):
            y = condition.get(self.key, condition.get(""))
        if not isinstance(y, Tensor):
            has = f"has {sorted(condition)}" if isinstance(condition, Mapping) else "is missing"
            raise ValueError(
                f"a classifier guides to a class, {self.key!r} where conditions have names, and the "
                f"condition {has}; give condition="
            )
        if y.ndim != 1 or y.dtype.is_floating_point:
            raise ValueError(
                f"a classifier guides to classes, one whole number a sample, and the condition is "
                f"{str(y.dtype).removeprefix('torch.')} {list(y.shape)}; give them under {self.key!r} in a "
                "mapping, beside what else the network is told"
            )
        return y.long()


def _checked(logits: Tensor, samples: int) -> Tensor:
    """The logits, if they are a classifier's."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != samples:
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the classifier returned {found} for {samples} samples; it returns logits [samples, classes]"
        )
    return logits


def with_classifier(
    network: ScoreNetwork,
    classifier: Callable[..., Tensor],
    *,
    channel_blocks: int | None = None,
    conditional: bool | Literal["null"] | None = None,
    key: str = "y",
) -> ScoreNetwork:
    """The network and grad log p(y | x) of a noise-aware classifier (Dhariwal & Nichol 2021).

    classifier   called as classifier(x, label), with the input and label of the network; returns logits
                 [N, classes]
    channel_blocks  of the network's own outputs; None is 1, 4 with heads, 2 with a variance
    conditional  whether the network itself is given the condition, or "null": always its null; None is
                 True where it has classes or a null
    key          the class among a condition's names, where it is a mapping

    `Sampler(..., classifier_scale=s)` then subtracts s sigma grad from eps; the classes y come as
    condition=. Raises ValueError where there is a classifier already, eps is none to guide, or a network that
    is to be told its null has none.
    """
    about = network.parameterisation
    if about.latent:
        raise ValueError(f"{about.name!r} reads a latent: a generator's eps is none to guide")
    if about.end_label is not None:
        raise ValueError(
            f"{about.name!r} is told where its step ends (end_label): a classifier's gradient is of one time"
        )
    if about.gradient is not None:
        raise ValueError(f"the network {about.name!r} has a classifier already")
    if about.derivative == "exact":
        raise ValueError(
            "the exact derivative follows the guided ODE: add the classifier first, "
            "exact_derivative(with_classifier(network, classifier))"
        )
    if channel_blocks is None:
        channel_blocks = 4 if about.derivative == "heads" else 2 if about.variance else 1
    if conditional is None:
        conditional = about.classes is not None or about.unconditional
    if conditional not in (True, False, "null") or (conditional == "null" and network.null is None):
        raise ValueError(
            f"conditional={conditional!r}: {about.name!r} is told the condition, True, none, False, or "
            'the null that it has, "null"'
        )
    module = Classified(network, classifier, channel_blocks, conditional, key)
    module.train(getattr(network.module, "training", False))
    return network.with_module(module, gradient=channel_blocks, inference=False)
