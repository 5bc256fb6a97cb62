"""The ops of networks share their dtypes, their rows, and the rate that these are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

from . import results, timing
from .timing import Task

DTYPES = {"cpu": (torch.float32,), "cuda": (torch.bfloat16, torch.float16, torch.float32)}

Contender = Callable[[], Tensor]


def product(device: torch.device, dtype: torch.dtype) -> tuple[int, Contender]:
    """A large matrix product, and its floating-point operations."""
    n = 2048 if device.type == "cpu" else 8192
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    return 2 * n**3, lambda: a @ b


@cache
def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """The GFLOP/s of a large matrix product, which the arithmetic reaches at its best."""
    flop, run = product(device, dtype)
    spread = timing.interleave([Task("matmul", [run])], 9, timing.clock(device))
    return flop / spread["matmul"].median * 1e-3


def rows(
    device: torch.device, repeats: int, contenders: Mapping[str, Callable[[], object]],
    errors: dict[str, float], shared: results.Row, before: Callable[[], None] = timing.nothing,
) -> list[results.Row]:  # fmt: skip
    """The rows of all contenders, timed in one interleaved run.

    shared  what the rows have in common
    before  is called before every call and not timed
    """
    tasks = [Task(name, [run], before) for name, run in contenders.items()]
    others = timing.Others()
    times = timing.interleave(tasks, repeats, timing.clock(device))
    bar = min(s.median for name, s in times.items() if name.startswith(("torch", "compile")))
    shared = shared | {"repeats": repeats, "others": others.share(), "cache": "network"}
    made = []
    for name, spread in times.items():
        found: results.Row = {"provider": name, "max_error": errors.get(name)} | spread.columns()
        if name.startswith("ours:"):
            found["vs_best_torch"] = bar / spread.median
        made.append(results.row(device, **shared, **found))
    return made


def rate(rows: list[results.Row], flop: int, device: torch.device, dtype: torch.dtype) -> None:
    """Adds GFLOP/s and their share of the ceiling to the rows."""
    for row in rows:
        row["gflop_s"] = flop / row["median_us"] * 1e-3  # type: ignore[operator]
        row["ceiling_share"] = row["gflop_s"] / ceiling(device, dtype)
