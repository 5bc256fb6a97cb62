"""The same step by others: plain torch as fast as we can write it, and diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..cases import SCALE, STEPS, Buffers, Case, flat

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


def plain(buffers: Buffers, variant: str) -> Call:
    """In place, allocating nothing, with the coefficients folded on the host.

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
    """addr wants one dtype; blocks pay where a tensor leaves the cache."""
    names = ["mul_add"] if network != torch.float32 else list(MIXES)
    return names + [f"{n}-blocked" for n in names if big and device == "cpu"]


class Diffusers:
    """A scheduler's own `.step`, called as its documentation does, with every per-run cost outside."""

    def __init__(self, case: Case, device: torch.device) -> None:
        import diffusers

        self.case = case
        kind = getattr(diffusers, case.scheduler)
        clip = {} if case.history else {"clip_sample": case.clip}
        self.scheduler = kind(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, **clip)
        if case.history:  # its own spacing rounds to other timesteps
            spacing = 1000 // STEPS
            given = [spacing * i for i in reversed(range(STEPS))]
            self.scheduler.set_timesteps(timesteps=given, device=device)
        else:
            self.scheduler.set_timesteps(STEPS, device=device)
        # DDIM otherwise mixes a clipped estimate with the eps of the unclipped one.
        corrected = case.clip and case.scheduler == "DDIMScheduler"
        self.options = {"use_clipped_model_output": True} if corrected else {}
        self.index = self.scheduler.timesteps.tolist().index(case.timestep)

    def call(self, buffers: Buffers) -> Call:
        """The step on a set. It returns the new x, and leaves the set as it was."""
        step, t, eps = self.scheduler.step, self.case.timestep, buffers.eps

        def call() -> Tensor:
            out = eps
            if self.case.guided:
                conditional, unconditional = eps.chunk(2)
                out = unconditional + SCALE * (conditional - unconditional)
            if self.case.history:  # where the step before this one would have left it
                self.scheduler._step_index = self.index
                self.scheduler.lower_order_nums = 2
                self.scheduler.model_outputs[-1] = buffers.past
            x = step(out, t, buffers.x, return_dict=False, **self.options)[0]
            return x.to(eps.dtype) if self.case.net else x

        return call
