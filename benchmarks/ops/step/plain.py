"""The step in plain torch, as fast as it can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .cases import Buffers, Case, flat

Call = Callable[[], Any]
Mix = Callable[[Tensor, Tensor, float, float, Tensor], None]

BLOCK = 1 << 18  # elements


def two_passes(x: Tensor, y: Tensor, a: float, b: float, out: Tensor) -> None:
    """out = a x + b y."""
    torch.mul(x, a, out=out).add_(y, alpha=b)


def one_pass(x: Tensor, y: Tensor, a: float, b: float, out: Tensor) -> None:
    """out = a x + b y as an outer product with [1]: one kernel reads and writes everything once."""
    torch.addr(x.unsqueeze(1), y, y.new_ones(1), beta=a, alpha=b, out=out.unsqueeze(1))


MIXES: dict[str, Mix] = {"mul_add": two_passes, "addr": one_pass}


def in_place(buffers: Buffers, variant: str) -> Call:
    """The step in place, allocating nothing, with the coefficients folded on the host.

    variant  a name of MIXES; "-blocked" after it: in blocks that stay in the cache between passes
    """
    name, _, blocked = variant.partition("-")
    views = {
        "x": buffers.x,
        "past": buffers.past,
        "net": buffers.net,
        "d": buffers.spare,
        "z": buffers.z,
    } | {f"e{j}": part for j, part in enumerate(buffers.branches)}
    whole = {n: flat(t, buffers.layout) for n, t in views.items() if t is not None}
    size = BLOCK if blocked else buffers.x.numel()
    parts = zip(*(t.split(size) for t in whole.values()), strict=True)
    updates = [_update(buffers.case, dict(zip(whole, p, strict=True)), MIXES[name]) for p in parts]
    if len(updates) == 1:
        return updates[0]

    def call() -> None:
        for update in updates:
            update()

    return call


def _update(case: Case, t: dict[str, Tensor], mix: Mix) -> Call:
    row, new = case.row, case.row.new[0]
    x, outputs = t["x"], [t[f"e{j}"] for j in range(case.outputs)]
    keep, on_x, on_d = case.clip or case.history, new["S0"], new["D"]
    if not keep:  # denoised is not wanted for itself: fold it away
        on_x, on_eps = on_x + on_d * row.p[0], [on_d * q for q in row.q]

    def call() -> None:
        if keep:
            mix(x, outputs[0], row.p[0], row.q[0], t["d"])
            if case.clip:
                t["d"].clamp_(-1.0, 1.0)
            mix(x, t["d"], on_x, on_d, x)
        else:
            mix(x, outputs[0], on_x, on_eps[0], x)
            for output, weight in zip(outputs[1:], on_eps[1:], strict=True):
                x.add_(output, alpha=weight)
        if case.history:  # d is the next past: the two buffers change places
            x.add_(t["past"], alpha=new["S1"])
        if case.noisy:
            x.add_(t["z"].normal_(), alpha=new["z0"])
        if case.net:
            t["net"].copy_(x)

    return call


def variants(device: str, network: torch.dtype, big: bool) -> list[str]:
    """The variants to time: addr wants one dtype, and blocks pay where a tensor leaves the cache."""
    names = ["mul_add"] if network != torch.float32 else list(MIXES)
    return names + [f"{n}-blocked" for n in names if big and device == "cpu"]
