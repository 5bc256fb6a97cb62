"""Every operation of a recording: its time beside the least that the machine's rates allow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import layers, results, timing
from .. import engine
from .cases import CPU, Case, Files
from .contenders import call_of


@dataclass(frozen=True)
class Cost:
    """flop: a multiplication and an addition are two; bytes of activations and of constants, each read or
    written once."""

    flop: int
    activations: int
    constants: int

    def floor(self, rate: float, near: float, far: float) -> float:
        """Milliseconds at GFLOP/s, and GB/s of activations and of constants: the larger of both."""
        return max(self.flop / rate, self.activations / near + self.constants / far) * 1e-6


def measure(case: Case, repeats: int, folder: Path) -> Iterator[results.Row]:
    """Rows of operations of one kind and size, and of the whole."""
    from diffusion_engine.native import Native
    from diffusion_engine.native.program import Program

    run = Files(folder).ddim_run(case)
    given, inputs = call_of(run)
    threads = torch.get_num_threads()
    recording = Native(threads=threads).recording(engine.score_network(run, run.module), given)
    packed = recording.packed
    recorded = recording._graph.at(case.batch, packed.joint, packed.folded)
    operations = recorded.operations
    with numbered(operations):
        program = Program(recorded, recording.pools.of(threads), packed.weights)
    for _ in range(3):
        program(inputs)
    whole = timing.Spread.of([timing.cpu_clock(lambda: program(inputs)) for _ in range(repeats)])
    took = profiled(program, inputs, len(operations), repeats)
    costs = [cost(operation) for operation in operations]
    rate = layers.ceiling(CPU, torch.float32)
    far = bandwidth(rounded(packed.weights.bytes))
    shared: dict[str, Any] = {
        "part": "floor", "network": case.network, "batch": case.batch, "contender": "ours:native",
        "waiting": os.environ.get("OMP_WAIT_POLICY", ""), "repeats": repeats,
    }  # fmt: skip
    total = 0.0
    groups: dict[tuple[str, str], list[int]] = {}
    for i, operation in enumerate(operations):
        groups.setdefault((operation.name, size(operation)), []).append(i)
    for (kind, shape), members in sorted(groups.items(), key=lambda g: -sum(took[i] for i in g[1])):
        each = [costs[i] for i in members]
        floor = sum(c.floor(rate, bandwidth(rounded(c.activations)), far) for c in each)
        total += floor
        flop, moved = sum(c.flop for c in each), sum(c.activations + c.constants for c in each)
        yield results.row(
            CPU, results.NATIVE_KEYS, **shared, operation=kind, size=shape, count=len(members),
            ms=sum(took[i] for i in members), gflop=flop * 1e-9, mbyte=moved * 1e-6, floor_ms=floor,
        )  # fmt: skip
    yield results.row(
        CPU, results.NATIVE_KEYS, **shared, operation="all", count=len(operations), ms=whole.median / 1e3,
        p20_ms=whole.p20 / 1e3, p80_ms=whole.p80 / 1e3, gflop=sum(c.flop for c in costs) * 1e-9,
        mbyte=sum(c.activations + c.constants for c in costs) * 1e-6, floor_ms=total, gflop_s=rate,
        gb_s=far,
    )  # fmt: skip


@contextmanager
def numbered(operations: Sequence[Any]) -> Iterator[None]:
    """Operations are called by their number meanwhile: one may become several tasks, which bear its name."""
    kinds, number = {type(o) for o in operations}, {id(o): str(i) for i, o in enumerate(operations)}
    own = {kind: kind.__dict__.get("name") for kind in kinds}
    for kind in kinds:
        kind.name = property(lambda operation: number[id(operation)])
    try:
        yield
    finally:
        for kind, name in own.items():
            if name is None:
                del kind.name
            else:
                kind.name = name


def profiled(program: Any, inputs: list[Tensor], count: int, repeats: int) -> list[float]:
    """The milliseconds of each operation, medians over the runs."""
    runs = []
    program.native.profile(True)
    for _ in range(repeats):
        program.native.reset()
        program(inputs)
        runs.append(by_operation(program.native.table(), count))
    program.native.profile(False)
    return torch.tensor(runs, dtype=torch.float64).median(0).values.tolist()


def by_operation(table: list[dict[str, Any]], count: int) -> list[float]:
    """The milliseconds of a run, of tasks that bear the numbers of their operations."""
    took = [0.0] * count
    for row in table:
        took[int(row["name"])] += row["ns"] * 1e-6
    return took


def cost(operation: Any) -> Cost:
    values = {id(v): v for v in (*operation.values(), *operation.writes())}.values()
    constants = {id(t): t for t in tensors(operation)}.values()
    return Cost(
        flop(operation),
        sum(v.meta.numel() * v.dtype.itemsize for v in values),
        sum(t.numel() * t.element_size() for t in constants),
    )


def flop(operation: Any) -> int:
    """Of products, by their definition; what is elementwise counts by its bytes."""
    kind = type(operation).__name__
    if kind == "Conv":
        return 2 * operation.out.meta.numel() * operation.weight[0].numel()
    if kind == "Linear":
        return 2 * operation.out.meta.numel() * operation.weight.shape[1]
    if kind == "MatMul":
        return 2 * operation.out.meta.numel() * operation.a.shape[-1]
    if kind == "Attention":
        return 4 * operation.q.meta.numel() * operation.k.shape[2]
    return 0


def size(operation: Any) -> str:
    """What tells operations of one kind apart."""
    kind, out = type(operation).__name__, operation.out.shape
    if kind == "Conv":
        taps, side = operation.weight.shape[2:], operation.out_size
        what = f"{operation.x.shape[2]} to {out[2]}, {results.dims(taps)}, {results.dims(side)}"
        what += " upsampled" if operation.upsample > 1 else ""
        return what + (" strided" if max(operation.stride) > 1 else "")
    if kind == "Linear":
        return f"{operation.x.shape[2]} to {out[2]}, {out[1]} rows"
    if kind == "MatMul":
        return f"{results.dims(out[1:])}, depth {operation.a.shape[-1]}"
    if kind == "Attention":
        return f"{results.dims(operation.q.shape[1:])}, {operation.k.shape[2]} keys"
    return results.dims(out[1:])


def tensors(given: Any) -> Iterator[Tensor]:
    """The constants in the fields of an operation."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, (list, tuple)):
        for part in given:
            yield from tensors(part)
    elif isinstance(given, dict):
        yield from tensors(list(given.values()))
    elif is_dataclass(given) and not hasattr(given, "meta"):
        for part in fields(given):
            yield from tensors(getattr(given, part.name))


def rounded(count: int) -> int:
    """Bytes to a power of two, in 64 KiB to 256 MiB."""
    return 1 << min(28, max(16, (max(1, count) - 1).bit_length()))


@cache
def bandwidth(count: int) -> float:
    """The GB/s of a copy that reads and writes so many bytes together, again and again."""
    x = torch.zeros(count // 8)
    out = torch.empty_like(x)
    calls = max(1, (1 << 22) // count)

    def copies() -> None:
        for _ in range(calls):
            out.copy_(x)

    spread = timing.interleave([timing.Task("copy", [copies])], 9, timing.cpu_clock)["copy"]
    return count * calls / spread.median * 1e-3
