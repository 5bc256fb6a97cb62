"""Times the op `group_norm` against torch's own over the norms of real networks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_engine.ops import functional
from diffusion_engine.testing import plain

from .. import agreement, layers, results, shapes
from ..layers import DTYPES, Contender
from ..providers import kernels

GROUPS = 32
L2_BYTES = 40e6  # of a tensor below which a GPU reads it from memory once


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    for workload, shape, silu in shapes.norms(device.type):
        for layout in ("contiguous", "channels_last"):
            for dtype in DTYPES[device.type]:
                if shapes.wanted(only, workload, shape, layout, results.dtype_name(dtype)):
                    yield partial(compare, workload, shape, silu, layout, dtype, device, repeats)


def compare(
    workload: str, shape: tuple[int, ...], silu: bool, layout: str, dtype: torch.dtype,
    device: torch.device, repeats: int,
) -> list[results.Row]:  # fmt: skip
    x = torch.randn(shape, device=device, dtype=dtype)
    if layout == "channels_last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    w, b = torch.randn(2, shape[1], device=device, dtype=dtype)
    groups = min(GROUPS, shape[1])
    everyone = contenders(workload, x, w, b, groups, silu, device)
    exact = by_torch(x.double(), w.double(), b.double(), groups, silu)
    bound = plain.allowed(plain.group_norm(x, groups, w, b, silu=silu), exact, dtype)
    errors = agreement.errors("group_norm", everyone, bound, exact)
    passes = 3 if device.type == "cuda" and x.nbytes > L2_BYTES else 2
    copy = torch.empty_like(x)
    shared: results.Row = {
        "op": "group_norm", "case": f"{workload}{' silu' if silu else ''}",
        "dtype": results.dtype_name(dtype), "shape": results.dims(shape), "layout": layout,
        "bytes_per_element": passes * x.itemsize,
    }  # fmt: skip
    timed = everyone | {"copy": lambda: copy.copy_(x)}
    rows = layers.rows(device, repeats, timed, errors, shared)
    speed = 2 * x.nbytes / next(r["median_us"] for r in rows if r["provider"] == "copy")
    for row in rows:
        size = 2 if row["provider"] == "copy" else passes
        row["gb_s"] = size * x.nbytes / row["median_us"] * 1e-3
        row["copy_share"] = size * x.nbytes / row["median_us"] / speed
    return rows


def contenders(
    workload: str, x: Tensor, w: Tensor, b: Tensor, groups: int, silu: bool, device: torch.device
) -> dict[str, Contender]:
    """Everyone who takes part; inductor, at up to half a minute a shape, at the targets' only."""
    found: dict[str, Contender] = {"torch": partial(by_torch, x, w, b, groups, silu)}
    if workload == "target":
        torch.compiler.reset()  # it gives up on a function after some shapes
        compiled = torch.compile(by_torch, dynamic=False)
        found["compile"] = partial(compiled, x, w, b, groups, silu)
    for backend in kernels("group_norm", device.type):
        found[f"ours:{backend}"] = partial(
            functional.group_norm, x, groups, w, b, silu=silu, backend=backend
        )
    return found


def by_torch(x: Tensor, w: Tensor, b: Tensor, groups: int, silu: bool) -> Tensor:
    y = F.group_norm(x, groups, w, b)
    return F.silu(y, inplace=True) if silu else y


def errors(workload: str) -> Iterator[agreement.Sums]:
    for shape, silu in shapes.NORMS[workload]:
        yield sums(shape, silu)


def sums(shape: tuple[int, ...], silu: bool) -> agreement.Sums:
    x, (w, b) = torch.randn(1, *shape), torch.randn(2, shape[0])
    groups = min(GROUPS, shape[0])
    return agreement.Sums(
        "group_norm", shape,
        plain=plain.group_norm(x, groups, w, b, silu=silu),
        torch=by_torch(x, w, b, groups, silu),
        engine=functional.group_norm(x, groups, w, b, silu=silu, backend="cpp"),
        exact=by_torch(x.double(), w.double(), b.double(), groups, silu),
    )  # fmt: skip
