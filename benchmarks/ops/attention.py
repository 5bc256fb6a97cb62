"""Times the op `attention` against torch's own over the attentions of real networks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusion_engine.ops import functional
from diffusion_engine.testing import plain

from .. import agreement, layers, results, shapes
from ..layers import DTYPES, Contender
from ..providers import kernels

PART = 256  # queries whose plain sums are the yardstick: all would take longer than the timing


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    for workload, shape in shapes.attentions(device.type):
        for layout in ("tokens", "heads"):
            for dtype in DTYPES[device.type]:
                if shapes.wanted(only, workload, shape, layout, results.dtype_name(dtype)):
                    yield partial(compare, workload, shape, layout, dtype, device, repeats)


def compare(
    workload: str, shape: tuple[int, int, int, int, int], layout: str, dtype: torch.dtype,
    device: torch.device, repeats: int,
) -> list[results.Row]:  # fmt: skip
    """The rows of one shape.

    layout  "tokens" is memory [B, N, H, D], as a projection leaves it; "heads" is [B, H, N, D]
    """
    batch, heads, queries, keys, dim = shape

    def made(tokens: int) -> Tensor:
        if layout == "heads":
            return torch.randn(batch, heads, tokens, dim, device=device, dtype=dtype)
        return torch.randn(batch, tokens, heads, dim, device=device, dtype=dtype).transpose(1, 2)

    q, k, v = made(queries), made(keys), made(keys)
    everyone = contenders(q, k, v)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    part, size = plain.attention(q[:, :, :PART], k, v), float(exact.abs().max())
    bound = plain.allowed(part, exact[:, :, :PART], dtype, size)
    errors = agreement.errors("attention", everyone, bound, exact)
    shared: results.Row = {
        "op": "attention", "case": workload, "dtype": results.dtype_name(dtype),
        "shape": results.dims(shape), "layout": layout,
    }  # fmt: skip
    rows = layers.rows(device, repeats, everyone, errors, shared)
    layers.rate(rows, 4 * batch * heads * queries * keys * dim, device, dtype)
    return rows


def contenders(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Contender]:
    found: dict[str, Contender] = {}
    if q.device.type == "cpu":
        found["torch"] = partial(F.scaled_dot_product_attention, q, k, v)
    else:
        found |= _sdpa(q, k, v)
    for backend in kernels("attention", q.device.type):
        found[f"ours:{backend}"] = partial(functional.attention, q, k, v, backend=backend)
    return found


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Contender]:
    """Those of torch's kernels that take these tensors."""
    found: dict[str, Contender] = {}
    for kind in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH"):
        run = partial(_by_backend, SDPBackend.__members__[kind], q, k, v)
        try:
            run()
        except RuntimeError as error:
            print(f"torch:{kind.lower()} refuses {list(q.shape)}: {str(error).splitlines()[0]}")
        else:
            found[f"torch:{kind.lower()}"] = run
    return found


def _by_backend(kind: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(kind):
        return F.scaled_dot_product_attention(q, k, v)


def errors(workload: str) -> Iterator[agreement.Sums]:
    for shape in shapes.ATTENTIONS[workload]:
        yield sums(*shape)


def sums(heads: int, queries: int, keys: int, dim: int) -> agreement.Sums:
    q, k, v = (torch.randn(1, heads, n, dim) for n in (queries, keys, keys))
    return agreement.Sums(
        "attention", (heads, queries, keys, dim),
        plain=plain.attention(q, k, v),
        torch=F.scaled_dot_product_attention(q, k, v),
        engine=functional.attention(q, k, v, backend="cpp"),
        exact=F.scaled_dot_product_attention(q.double(), k.double(), v.double()),
    )  # fmt: skip
