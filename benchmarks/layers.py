"""Times the ops of networks, group_norm and attention, against torch's own over real shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusion_engine.ops import functional
from diffusion_engine.testing import plain

from . import results, shapes, timing
from .cases import PROVIDERS
from .gate import TOLERANCE, GateError
from .timing import Task

GROUPS = 32
PART = 256  # queries whose plain sums are the yardstick: all would take longer than the timing
L2_BYTES = 40e6  # of a tensor below which a GPU reads it from memory once
DTYPES = {"cpu": (torch.float32,), "cuda": (torch.bfloat16, torch.float16, torch.float32)}

Contender = Callable[[], Tensor]


def backends(op: str, device: torch.device) -> list[str]:
    """Ours, but for the references, which are no contenders."""
    return [
        b
        for (o, b), where in PROVIDERS.items()
        if o == op and device.type in where and b != "torch"
    ]


def group_norm(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    for workload, shape, silu in shapes.norms(device.type):
        for layout in ("contiguous", "channels_last"):
            for dtype in DTYPES[device.type]:
                label = f"{workload} {'x'.join(map(str, shape))} {layout} {str(dtype)[6:]}"
                if all(word in label for word in only):
                    yield partial(
                        compare_norm, workload, shape, silu, layout, dtype, device, repeats
                    )


def compare_norm(
    workload: str, shape: tuple[int, ...], silu: bool, layout: str, dtype: torch.dtype,
    device: torch.device, repeats: int,
) -> list[results.Row]:  # fmt: skip
    x = torch.randn(shape, device=device, dtype=dtype)
    if layout == "channels_last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    w, b = torch.randn(2, shape[1], device=device, dtype=dtype)
    groups = min(GROUPS, shape[1])
    contenders = norms(workload, x, w, b, groups, silu, device)
    exact = _norm(x.double(), w.double(), b.double(), groups, silu)
    bound = plain.allowed(plain.group_norm(x, groups, w, b, silu=silu), exact, dtype)
    errors = check("group_norm", contenders, bound, exact)
    passes = 3 if device.type == "cuda" and x.nbytes > L2_BYTES else 2
    copy = torch.empty_like(x)
    extra = {"copy": lambda: copy.copy_(x)}
    shared = {
        "op": "group_norm", "case": f"{workload}{' silu' if silu else ''}", "dtype": str(dtype)[6:],
        "shape": "x".join(map(str, shape)), "layout": layout, "bytes_per_element": passes * x.itemsize,
    }  # fmt: skip
    rows = times_of(device, repeats, contenders | extra, errors, shared)
    speed = 2 * x.nbytes / next(r["median_us"] for r in rows if r["provider"] == "copy")
    for row in rows:
        size = 2 if row["provider"] == "copy" else passes
        row["gb_s"] = size * x.nbytes / row["median_us"] * 1e-3
        row["copy_share"] = size * x.nbytes / row["median_us"] / speed
    return rows


def norms(
    workload: str, x: Tensor, w: Tensor, b: Tensor, groups: int, silu: bool, device: torch.device
) -> dict[str, Contender]:
    """Everyone who takes part. Inductor takes up to half a minute a shape: the named ones show it."""
    found: dict[str, Contender] = {"torch": partial(_norm, x, w, b, groups, silu)}
    if workload == "target":
        torch.compiler.reset()  # it gives up on a function after some shapes
        compiled = torch.compile(_norm, dynamic=False)
        found["compile"] = partial(compiled, x, w, b, groups, silu)
    for backend in backends("group_norm", device):
        found[f"ours:{backend}"] = partial(
            functional.group_norm, x, groups, w, b, silu=silu, backend=backend
        )
    return found


def _norm(x: Tensor, w: Tensor, b: Tensor, groups: int, silu: bool) -> Tensor:
    y = F.group_norm(x, groups, w, b)
    return F.silu(y, inplace=True) if silu else y


def attention(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    for workload, shape in shapes.attentions(device.type):
        for layout in ("tokens", "heads"):
            for dtype in DTYPES[device.type]:
                label = f"{workload} {'x'.join(map(str, shape))} {layout} {str(dtype)[6:]}"
                if all(word in label for word in only):
                    yield partial(
                        compare_attention, workload, shape, layout, dtype, device, repeats
                    )


def compare_attention(
    workload: str, shape: tuple[int, int, int, int, int], layout: str, dtype: torch.dtype,
    device: torch.device, repeats: int,
) -> list[results.Row]:  # fmt: skip
    """Layout "tokens" is memory [B, N, H, D], as a projection leaves it; "heads" is [B, H, N, D]."""
    batch, heads, queries, keys, dim = shape

    def made(tokens: int) -> Tensor:
        if layout == "heads":
            return torch.randn(batch, heads, tokens, dim, device=device, dtype=dtype)
        return torch.randn(batch, tokens, heads, dim, device=device, dtype=dtype).transpose(1, 2)

    q, k, v = made(queries), made(keys), made(keys)
    contenders: dict[str, Contender] = {}
    if device.type == "cpu":
        contenders["torch"] = partial(F.scaled_dot_product_attention, q, k, v)
    else:
        contenders |= _sdpa(q, k, v)
    for backend in backends("attention", device):
        contenders[f"ours:{backend}"] = partial(functional.attention, q, k, v, backend=backend)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    part = plain.attention(q[:, :, :PART], k, v)
    size = float(exact.abs().max())
    bound = plain.allowed(part, exact[:, :, :PART], dtype, size)
    errors = check("attention", contenders, bound, exact)
    flops = 4 * batch * heads * queries * keys * dim
    shared = {
        "op": "attention", "case": workload, "dtype": str(dtype)[6:],
        "shape": "x".join(map(str, shape)), "layout": layout,
    }  # fmt: skip
    rows = times_of(device, repeats, contenders, errors, shared)
    for row in rows:
        row["gflop_s"] = flops / row["median_us"] * 1e-3
        row["ceiling_share"] = row["gflop_s"] / ceiling(device, dtype)
    return rows


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Contender]:
    """Each of torch's that takes these."""
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


@cache
def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of a large matrix product: what the arithmetic reaches at its best."""
    flop, run = product(device, dtype)
    spread = timing.interleave([Task("matmul", [run])], 9, timing.clock(device))
    return flop / spread["matmul"].median * 1e-3


def product(device: torch.device, dtype: torch.dtype) -> tuple[int, Contender]:
    """A large matrix product, and its floating-point operations."""
    n = 2048 if device.type == "cpu" else 8192
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    return 2 * n**3, lambda: a @ b


def check(
    op: str, contenders: dict[str, Contender], bound: float, exact: Tensor
) -> dict[str, float]:
    """The errors of all, of the largest value. Raises GateError unless ours are within the bound, and the
    others within that or TOLERANCE."""
    size = float(exact.abs().max())
    errors = {}
    for name, run in contenders.items():
        made = run()
        error = float((made.double() - exact).abs().max())
        theirs = (TOLERANCE + 2 * torch.finfo(made.dtype).eps) * size
        allowed = bound if name.startswith("ours:") else max(bound, theirs)
        if not error <= allowed:
            raise GateError(f"{name}: {op} has the error {error:.2g}, {allowed:.2g} is allowed")
        errors[name] = error / size
    return errors


def times_of(
    device: torch.device, repeats: int, contenders: dict[str, Contender], errors: dict[str, float],
    shared: results.Row, before: Callable[[], None] = timing.nothing,
) -> list[results.Row]:  # fmt: skip
    tasks = [Task(name, [run], before) for name, run in contenders.items()]
    others = timing.Others()
    found = timing.interleave(tasks, repeats, timing.clock(device))
    bar = min(s.median for name, s in found.items() if name.startswith(("torch", "compile")))
    shared = shared | {"repeats": repeats, "others": others.share(), "cache": "network"}
    rows = []
    for name, spread in found.items():
        times = {"median_us": spread.median, "p20_us": spread.p20, "p80_us": spread.p80}
        ours = {"vs_best_torch": bar / spread.median} if name.startswith("ours:") else {}
        known = {"provider": name, "max_error": errors.get(name)} | times | ours
        rows.append(results.row(device, **shared, **known))
    return rows
