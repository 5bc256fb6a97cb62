"""All contenders make the same step before it is timed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_engine.ops import philox

from ...agreement import TOLERANCE, Disagreement, difference
from . import plain
from .cases import Buffers, engine
from .diffusers import Diffusers


def check_engine(make: Callable[[], Buffers], backend: str) -> None:
    """Raises Disagreement unless a backend equals the reference bit for bit, and the formula nearly."""
    got, want = make(), make()
    engine(got, backend)()
    engine(want, "torch")()
    for name in ("slots", "net"):
        a, b = getattr(got, name), getattr(want, name)
        if a is not None and not torch.equal(a, b):
            count = int((a != b).sum())
            raise Disagreement(f"{backend}: {name} differs from the reference in {count} elements")
    fresh = make()
    keys = torch.full((len(fresh.x),), got.case.row.key, device=fresh.x.device)
    seeds = torch.arange(len(fresh.x), device=fresh.x.device)
    z = philox.normals(seeds, keys, 0, fresh.x[0].numel()).view(fresh.x.shape)
    _close(backend, got.x, fresh, z)


def check_plain(make: Callable[[], Buffers], variant: str) -> None:
    got, fresh = make(), make()
    plain.in_place(got, variant)()
    _close(variant, got.x, fresh, got.z)
    if got.net is not None:
        _close(f"{variant}, network input", got.net, fresh, got.z)
    if fresh.case.history:
        estimate = fresh.case.denoised(fresh.x, fresh.branches)
        _near(f"{variant}, denoised", got.spare, estimate, fresh)


def check_diffusers(make: Callable[[], Buffers], peer: Diffusers) -> None:
    given = make()
    torch.manual_seed(3)
    got = peer.call(given)()
    torch.manual_seed(3)
    # Drawn as diffusers' randn_tensor does: logical order, whatever the layout.
    z = torch.randn(given.x.shape, dtype=given.eps.dtype, device=given.x.device)
    _close("diffusers", got, make(), z)


def _close(who: str, got: Tensor, fresh: Buffers, z: Tensor) -> None:
    want = fresh.case.expected(fresh.x, fresh.branches, fresh.past, z)
    _near(who, got, want, fresh)


def _near(who: str, got: Tensor, want: Tensor, fresh: Buffers) -> None:
    """Raises Disagreement beyond TOLERANCE and a rounding unit of a network in half precision.

    Peers compute in the network's dtype.
    """
    error = difference(got, want)
    half = fresh.eps.dtype != torch.float32
    unit = 2.0 * torch.finfo(fresh.eps.dtype).eps if half else 0.0
    if not error <= TOLERANCE + unit:
        raise Disagreement(f"{who}: {fresh.case.name} differs from the formula by {error:.2g}")
