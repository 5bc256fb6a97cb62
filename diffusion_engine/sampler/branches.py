"""The conditions that the branches of a request are called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..networks.autoguidance import KEY
from ..networks.condition import check_shapes, checked, null_like
from ..networks.network import Condition, ScoreNetwork
from .request import Request


def branches(
    part: Request, network: ScoreNetwork, device: torch.device, dtype: torch.dtype
) -> list[Condition | None]:
    """The condition of every branch: the given one, then none or a negative one, then the further concepts. A
    network that reads its guidance scale has the first alone, with the scale in it in `dtype`. A measurement
    is in all."""
    made = _branches(part, network, device, dtype)
    if part.measurement is None:
        return made
    return [with_measurement(condition, part.measurement) for condition in made]


def _branches(
    part: Request, network: ScoreNetwork, device: torch.device, dtype: torch.dtype
) -> list[Condition | None]:
    if network.parameterisation.guide:
        return [with_network(part.condition, which, len(part.seeds), device) for which in (0, 1)]
    if network.scale_input is not None:
        scales = [scale for scale in part.scales if isinstance(scale, float)]
        return [with_scale(network, part.condition, scales, device, dtype)]
    if part.condition is None or (network.null is None and not part.concepts):
        return [part.condition]
    # Without an unconditional branch nothing calls branch 1.
    none: Condition | None = part.condition
    if part.negative is not None:
        none = part.negative
    elif network.null is not None:
        none = null_like(network, part.condition, dtype)
    names = [sorted(c) if isinstance(c, Mapping) else None for c in (part.condition, none)]
    if names[0] != names[1]:
        raise ValueError(
            f"the condition has the names {names[0]} and the network's null condition {names[1]}; "
            "give both the same"
        )
    check_shapes(part.condition, none)
    return [part.condition, none, *part.concepts]


def example(network: ScoreNetwork, device: torch.device, dtype: torch.dtype) -> Condition | None:
    """A condition for one sample, where the network says what they look like."""
    made = checked(network, None if network.classes is None else 0, 1, device, dtype)
    if network.parameterisation.guide:
        made = with_network(made, 0, 1, device)
    if network.scale_input is not None:
        made = with_scale(network, made, (1.0,), device, dtype)
    if network.measured is None:
        return made
    return with_measurement(made, torch.zeros(1, *network.measured, device=device))


def with_measurement(condition: Condition | None, y: torch.Tensor) -> Condition:
    """The condition and a measurement [n, *measured]; a tensor without a name is ""'s."""
    if condition is None:
        return {"measurement": y}
    own = dict(condition) if isinstance(condition, Mapping) else {"": condition}
    return own | {"measurement": y}


def with_network(
    condition: Condition | None, which: int, n: int, device: torch.device
) -> Condition:
    """The condition of n samples, and which of an autoguided network is called: 0 itself, 1 its guide."""
    own = (
        condition
        if isinstance(condition, Mapping)
        else {}
        if condition is None
        else {"": condition}
    )
    if KEY in own:
        raise ValueError(
            f"the condition's {KEY!r} is what an autoguided network is told; name yours otherwise"
        )
    return {**own, KEY: torch.full((n,), which, dtype=torch.int64, device=device)}


def with_scale(
    network: ScoreNetwork,
    condition: Condition | None,
    scales: Sequence[float],
    device: torch.device,
    dtype: torch.dtype,
) -> Condition:
    """The condition, and what tells the network its guidance scale; a tensor without a name is ""'s."""
    assert network.scale_input is not None
    made = network.scale_input(torch.tensor(scales, dtype=torch.float64))
    told = {name: tensor.to(device, dtype) for name, tensor in made.items()}
    wrong = [f"{name} {list(t.shape)}" for name, t in told.items() if len(t) != len(scales)]
    if wrong:
        raise ValueError(
            f"scale_input made {', '.join(wrong)} of {len(scales)} scales; it makes [n, ...] of n"
        )
    if condition is None:
        return told
    return (dict(condition) if isinstance(condition, Mapping) else {"": condition}) | told
