"""The exact d eps / dg: one Jacobian-vector product of the network along the ODE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from ..networks.classifier import Classified
from ..networks.condition import null_like
from ..networks.forward import turn
from ..networks.network import Condition, ScoreNetwork, gathered
from ..processes.levels import Levels, per_sample
from . import natural

# What torch says of a module that it cannot differentiate forwards.
NOT_FORWARD = ("functorch", "forward AD", "forward-mode", "jvp", "have storage")


class PlainNorms(TorchFunctionMode):
    """Group norm sees contiguous tensors: torch 2.13 has no forward derivative of it in channels_last."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (F.group_norm, torch.group_norm):
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))


class ExactDerivative(nn.Module):
    """The module of `exact_derivative`: module(x, t, condition) returns eps and d eps / dg.

    x  [N, C, *pixel], states in the process's natural coordinates
    t  [N] float64, their times
    """

    def __init__(self, network: ScoreNetwork, guidance: float, classifier_scale: float) -> None:
        super().__init__()
        if isinstance(network.module, nn.Module):
            self.module = network.module
        self.network, self.guidance, self.classifier_scale = network, guidance, classifier_scale

    @property
    def guided(self) -> bool:
        """Whether the derivative is that of a guided ODE."""
        return self.guidance != 1.0 or (
            self.network.parameterisation.gradient is not None and self.classifier_scale != 0.0
        )

    def forward(
        self, x: Tensor, t: Tensor, condition: Condition | None = None, **named: Tensor
    ) -> tuple[Tensor, Tensor]:
        given = gathered(condition, named)
        with turn(), sdpa_kernel(SDPBackend.MATH), torch.autocast(x.device.type, enabled=False):
            value = self.eps(x, t, given)
        return self.along(value, x, t, given)

    def along(
        self, value: Tensor, x: Tensor, t: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Tensor]:
        """eps and d eps / dg of states x whose eps, the direction of the ODE, is known to be `value`."""

        def eps(x: Tensor, t: Tensor) -> Tensor:
            return self.eps(x, t, condition)

        # Fused attention has no forward derivative, and a tangent in half precision no digits.
        with turn(), sdpa_kernel(SDPBackend.MATH), torch.autocast(x.device.type, enabled=False):
            at, dt, growth = rates(self.network.process, t)
            # x = alpha x_bar and d x_bar / dg = eps
            dx = per_sample(growth, x) * x + per_sample(at.alpha, x) * value
            try:
                with PlainNorms():
                    value, slope = torch.func.jvp(eps, (x, t), (dx, dt))  # type: ignore[misc]
            except RuntimeError as error:
                if not any(word in str(error) for word in NOT_FORWARD):
                    raise
                raise ValueError(
                    f"the network has no forward derivative ({str(error).splitlines()[0][:200]}): write it "
                    "with torch's functions alone, or use 'dpmpp_2m', which estimates the derivative"
                ) from error
        return value, slope

    def eps(self, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """The guided eps of states x at times t."""
        network, s = self.network, self.guidance
        module = network.module
        if s == 1.0:
            value = self._eps(x, t, condition)
        else:
            if condition is None:
                raise ValueError("guidance needs a condition to guide to; give condition=")
            null = null_like(network, condition, x.dtype)
            both = self._eps(torch.cat((x, x)), torch.cat((t, t)), _joined(condition, null))
            with_condition, without = both.chunk(2)
            value = (1.0 - s) * without + s * with_condition
        if isinstance(module, Classified) and self.classifier_scale:
            at, scaled, label = natural.inputs(network, x, t)
            gradient = module.gradient(scaled, label, condition, functional=True)
            # of log p with respect to x, of which the classifier saw a multiple
            weight = self.classifier_scale * at.sigma * network.parameterisation.c_in(at)
            value = value - per_sample(weight, x) * gradient
        return value

    def _eps(self, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        network = self.network
        at, scaled, label = natural.inputs(network, x, t)
        if isinstance(network.module, Classified):
            out = network.module.predict(scaled, label, condition)[0]
        else:
            out = network(scaled, label, condition)[0]
        return natural.eps(network, at, x, out)


def rates(process: Any, t: Tensor) -> tuple[Levels, Tensor, Tensor]:
    """The levels of times t [N], and there dt / dg and d log alpha / dg along the process."""

    def law(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at = Levels.of(process, t)
        return at.ratio, at.alpha, at.sigma

    values, slopes = torch.func.jvp(law, (t,), (torch.ones_like(t),))  # type: ignore[misc]
    (_, alpha, sigma), (dg, dalpha, _) = values, slopes
    return Levels(t, alpha, sigma), 1.0 / dg, dalpha / (alpha * dg)


def _joined(condition: Condition, null: Condition | None) -> Condition:
    """The conditions of a batch, then none for each of its entries."""
    if isinstance(condition, Mapping):
        assert isinstance(null, Mapping)
        return {
            name: torch.cat((tensor, null[name].to(tensor))) for name, tensor in condition.items()
        }
    assert isinstance(null, Tensor)
    return torch.cat((condition, null.to(condition)))


def exact_derivative(
    network: ScoreNetwork, *, guidance: float = 1.0, classifier_scale: float = 1.0
) -> ScoreNetwork:
    """A network that returns eps and the exact d eps / dg along the ODE, for the solver 'genie'.

    network           of any process and prediction; its label has to vary smoothly with the time
    guidance          classifier-free scale s, 1 for none
    classifier_scale  of a network made by `with_classifier`, 0 for none

    The derivative is that of the guided ODE: tangents follow (1 - s) eps_u + s eps_c - scale sigma grad, so
    sample it with guidance=1, at all times. (Guiding the outputs of an unguided network, as the published
    code does, is off by its Jacobian times s - 1 times the difference of the branches.) The total derivative
    is one Jacobian-vector product in the ODE's direction (dx / dg, dt / dg) (Dockhorn et al. 2022, section
    3.1); a call costs about three of the network's. A learned variance is not read.
    Raises ValueError where the label is a whole number, a scale makes no sense, or a rule takes no tensors.
    """
    for name, scale in (("guidance", guidance), ("classifier_scale", classifier_scale)):
        if not isinstance(scale, (int, float)) or not math.isfinite(scale):
            raise ValueError(
                f"{name}={scale!r}: the derivative is that of one ODE; give a finite number, the same for "
                "all samples"
            )
    if network.parameterisation.gradient is None and classifier_scale not in (0.0, 1.0):
        raise ValueError(
            f"classifier_scale={classifier_scale:g} and the network has no classifier; give the one of "
            "with_classifier(network, classifier)"
        )
    if not network.label_dtype.is_floating_point:
        raise ValueError(
            f"label_dtype={network.label_dtype}: a derivative in time needs a label that varies smoothly; "
            "give the ScoreNetwork label_dtype=torch.float32 if the module takes fractions"
        )
    if network.parameterisation.derivative is not None:
        raise ValueError(
            f"the network {network.name!r} offers d eps / dg already; give the one within"
        )
    if guidance != 1.0 and network.null is None:
        raise ValueError(
            f"guidance={guidance:g} needs an unconditional branch and the network has none; give "
            "ScoreNetwork its null condition"
        )
    natural.check(network)
    module = ExactDerivative(network, float(guidance), float(classifier_scale))
    if isinstance(network.module, nn.Module):
        module.train(network.module.training)
    return network.with_module(
        module, prediction="eps", label="t", label_dtype=torch.float64, scale="one",
        derivative="exact", guided=module.guided, inference=False, gradient=None, variance=None,
        null=None if module.guided else network.null,
    )  # fmt: skip
