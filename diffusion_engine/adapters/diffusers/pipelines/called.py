"""A pipeline's call of its network, taken apart: what is noise, time, condition, and the same for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....networks.wrapper import Wrapper

STATE = ("sample", "hidden_states")
TIME = "timestep"
# Tensors without a batch axis.
SHARED = ("img_ids", "txt_ids")
# Mappings of conditions; others, as cross_attention_kwargs, are the same for all entries.
CONDITIONS = ("added_cond_kwargs",)
# What other networks add to this one's layers, anew at every step.
ADDED = (
    "down_block_additional_residuals", "mid_block_additional_residual",
    "down_intrablock_additional_residuals", "controlnet_block_samples", "controlnet_single_block_samples",
    "block_controlnet_hidden_states",
)  # fmt: skip
EXTRA = "extra channels"  # those of the input that are not the state's


@dataclass(frozen=True)
class Call:
    """A call of a network.

    x         [N, C, *pixel] or [N, L, C], the noised latents, and channels that stay beside them
    time      what the network was told for it
    tensors   by name, [N, ...]; within a mapping "outer/inner"
    constant  all else, the same for all entries and steps
    """

    x: Tensor
    time: float
    tensors: Mapping[str, Tensor]
    constant: Mapping[str, Any]

    @classmethod
    def of(cls, args: tuple, kwargs: Mapping[str, Any]) -> Call:
        """Raises ValueError where another network acts on this one's layers."""
        rest = list(args)
        named = dict(kwargs)
        x = rest.pop(0) if rest else next(named.pop(name) for name in STATE if name in named)
        time = rest.pop(0) if rest else named.pop(TIME)
        if rest:  # what follows the time is a condition without a name
            named |= {"encoder_hidden_states": rest.pop(0)}
        tensors: dict[str, Tensor] = {}
        constant: dict[str, Any] = {}
        for name, value in named.items():
            if name in ADDED and value is not None:
                raise ValueError(
                    f"the pipeline gives its network {name}, of a ControlNet or adapter, which is another at "
                    "every step: call the pipeline itself, with EngineScheduler as its scheduler"
                )
            if name in CONDITIONS and value is not None:
                found = dict(_tensors(name, value))
                constant[name] = {k: v for k, v in value.items() if not any(_tensors(k, v))}
                tensors |= found
            elif isinstance(value, Tensor) and name not in SHARED:
                tensors[name] = value
            else:
                constant[name] = value
        constant.pop("return_dict", None)
        first = time.flatten()[0] if isinstance(time, Tensor) else time
        return cls(x, float(first), tensors, constant)


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Tensors within mappings and lists, by "outer/inner" and "outer/inner/0"."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (Mapping, list, tuple)):
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in inner:
            yield from _tensors(f"{name}/{key}", one)


class Called(Wrapper):
    """A pipeline's network as module(x, label, **tensors): what is the same in a run is kept.

    channels  of the state, along `axis`; the input may have others behind them, and so may the output
    """

    def __init__(
        self, module: nn.Module, constant: Mapping[str, Any], channels: int, axis: int
    ) -> None:
        super().__init__(module)
        self.constant, self.channels, self.axis = dict(constant), channels, axis
        self.train(module.training)

    def forward(self, x: Tensor, label: Tensor, **tensors: Tensor) -> Tensor:
        if (extra := tensors.pop(EXTRA, None)) is not None:
            x = torch.cat([x, extra.to(x.dtype)], self.axis)
        named: dict[str, Any] = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in self.constant.items()
        }
        for name, tensor in tensors.items():
            outer, *inner = name.split("/")
            if len(inner) == 2:  # of a list
                named[outer].setdefault(inner[0], []).append(tensor)
            elif inner:
                named[outer][inner[0]] = tensor
            else:
                named[outer] = tensor
        out: Tensor = self.module(x, timestep=label, **named, return_dict=False)[0]
        return out.narrow(self.axis, 0, self.channels)


def same(a: Any, b: Any) -> bool:
    """Whether constants of two calls are the same, tensors among them by value."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.device == b.device and bool(torch.equal(a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)
