"""Before anything is timed: all contenders make the same step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_engine.ops import philox as noise
from diffusion_engine.ops import registry
from diffusion_engine.ops.brownian import BrownianArgs
from diffusion_engine.ops.noise import NoiseArgs

from .cases import Buffers, ours
from .peers import step as peers

TOLERANCE = 1e-4  # of a peer, relative to the largest element


class GateError(RuntimeError):
    """A contender computes something else; there is nothing to compare."""


def check_ours(make: Callable[[], Buffers], backend: str) -> None:
    """Raises GateError unless a backend equals the reference bit for bit, and the formula nearly."""
    got, want = make(), make()
    ours(got, backend)()
    ours(want, "torch")()
    for name in ("slots", "net"):
        a, b = getattr(got, name), getattr(want, name)
        if a is not None and not torch.equal(a, b):
            count = int((a != b).sum())
            raise GateError(f"{backend}: {name} differs from the reference in {count} elements")
    fresh = make()
    keys = torch.full((len(fresh.x),), got.case.row.key, device=fresh.x.device)
    seeds = torch.arange(len(fresh.x), device=fresh.x.device)
    z = noise.normals(seeds, keys, 0, fresh.x[0].numel()).view(fresh.x.shape)
    _close(backend, got.x, fresh, z)


def check_plain(make: Callable[[], Buffers], variant: str) -> None:
    got, fresh = make(), make()
    peers.plain(got, variant)()
    _close(variant, got.x, fresh, got.z)
    if got.net is not None:
        _close(f"{variant}, network input", got.net, fresh, got.z)
    if fresh.case.history:
        estimate = fresh.case.denoised(fresh.x, fresh.branches)
        _near(f"{variant}, denoised", got.spare, estimate, fresh)


def check_diffusers(make: Callable[[], Buffers], peer: peers.Diffusers) -> None:
    given = make()
    torch.manual_seed(3)
    got = peer.call(given)()
    torch.manual_seed(3)
    # Drawn as diffusers' randn_tensor does: logical order, whatever the layout.
    z = torch.randn(given.x.shape, dtype=given.eps.dtype, device=given.x.device)
    _close("diffusers", got, make(), z)


def check_noise(args: NoiseArgs, backend: str) -> None:
    registry.resolve("noise", backend, args)(7, 0)
    got = args.out.clone()
    registry.resolve("noise", "torch", args)(7, 0)
    if not torch.equal(got, args.out):
        raise GateError(f"{backend}: the normals differ from the reference")


def check_brownian(args: BrownianArgs, backend: str) -> None:
    registry.resolve("brownian", backend, args)()
    got = args.out.clone()
    registry.resolve("brownian", "torch", args)()
    if not torch.equal(got, args.out):
        raise GateError(f"{backend}: the increments differ from the reference")


def _close(who: str, got: Tensor, fresh: Buffers, z: Tensor) -> None:
    want = fresh.case.expected(fresh.x, fresh.branches, fresh.past, z)
    _near(who, got, want, fresh)


def _near(who: str, got: Tensor, want: Tensor, fresh: Buffers) -> None:
    """A network in half precision makes peers compute in it."""
    error = float((got.double() - want).abs().max() / want.abs().max())
    half = fresh.eps.dtype != torch.float32
    unit = 2.0 * torch.finfo(fresh.eps.dtype).eps if half else 0.0
    if not error <= TOLERANCE + unit:
        raise GateError(f"{who}: {fresh.case.name} differs from the formula by {error:.2g}")
