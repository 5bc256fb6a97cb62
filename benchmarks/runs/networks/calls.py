"""The norms, attentions and 3x3 convolutions that a network computes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Calls(TorchFunctionMode):
    """Counts what a call computes: ("group_norm", shape, groups, silu), ("attention", heads, queries, keys,
    dim) and ("conv3x3", C, output channels, H, W) of stride 1, each of one sample."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[Any, ...]] = Counter()
        self.last: tuple[Tensor, tuple[Any, ...]] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is F.group_norm:
            key = ("group_norm", tuple(args[0].shape[1:]), args[1], False)
            self.counts[key] += 1
            self.last = out, key
        elif func is F.silu and self.last is not None and args[0] is self.last[0]:
            self.counts[self.last[1]] -= 1
            self.counts[(*self.last[1][:3], True)] += 1
        elif func is F.scaled_dot_product_attention:
            q, k = args[:2]
            self.counts["attention", q.shape[1], q.shape[2], k.shape[2], q.shape[3]] += 1
        elif (
            func is F.conv2d and args[1].shape[2:] == (3, 3) and out.shape[2:] == args[0].shape[2:]
        ):
            self.counts["conv3x3", args[0].shape[1], *out.shape[1:]] += 1
        return out


def calls(network: nn.Module, *given: Any, method: str = "forward") -> Counter[tuple[Any, ...]]:
    """The layers that a network on the meta device calls with such arguments, each with its count."""
    with Calls() as found, torch.no_grad():
        getattr(network, method)(*given)
    return +found.counts
