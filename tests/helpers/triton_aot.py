"""Compiles the Triton kernels for GPUs that need not be there and prints what ptxas says, as JSON.

Runs as a program of its own, since TRITON_INTERPRET of the tests decides when triton is imported:

    python tests/helpers/triton_aot.py [--all] [op ...]

Without --all for sm_90, and of norms and attention the usual ones in bfloat16; without names every op.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas

from diffusion_engine.kernels import attention, brownian, group_norm, noise, quantile, step
from diffusion_engine.kernels import norms as sums
from diffusion_engine.kernels.step_kernel import step as step_kernel
from diffusion_engine.ops import layout as at
from diffusion_engine.ops.attention import AttentionArgs
from diffusion_engine.ops.brownian import BrownianArgs
from diffusion_engine.ops.group_norm import GroupNormArgs
from diffusion_engine.ops.noise import NoiseArgs
from diffusion_engine.ops.norms import NormsArgs
from diffusion_engine.ops.quantile import QuantileArgs
from diffusion_engine.ops.registry import definition
from diffusion_engine.ops.step import StepArgs, Table
from diffusion_engine.ops.table import IMPLEMENTATIONS

ARCHS = (80, 90)
RARE = re.compile(
    r"group_norm .* odd|(group_norm|attention) .*float32|attention .* (8|80|160|256)$"
)
BATCH, STATE = 2, (4, 64, 64)


class Elsewhere:
    """A driver that knows its GPU and nothing else: enough to compile, too little to launch."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch

    def get_current_stream(self, device: int) -> int:
        return 0


def step_args(
    slots: int, normals: int, inputs: int, last: bool = False, full: bool = False, outputs: int = 1,
    given: bool = False,
) -> StepArgs:  # fmt: skip
    """A step on buffers of the usual kinds; `full` has all but `given`, noise for some."""

    def state(*lead: int, width: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        made = torch.empty(*lead, width * STATE[0], *STATE[1:], dtype=dtype)
        return made.movedim(-3, -1).contiguous().movedim(-1, -3) if last else made

    def ints(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=torch.int32)

    return StepArgs(
        slots=state(slots, BATCH),
        row=ints(BATCH),
        seed=torch.zeros(BATCH, dtype=torch.int64),
        table=Table(
            torch.zeros(8, at.COEF),
            ints(8, at.INDEX),
            torch.zeros(8, at.LABELS, dtype=torch.float64),
        ),
        src=ints(BATCH, outputs),
        dst=ints(BATCH, 2),
        net_in=state(2 * BATCH, width=inputs, dtype=torch.bfloat16),
        label=torch.zeros(2 * BATCH),
        end_label=torch.zeros(2 * BATCH) if full else None,
        noise=state(at.NORMALS + 1, BATCH) if given else None,
        given=ints(BATCH) if given else None,
        mask=state(BATCH) if full else None,
        known=state(BATCH) if full else None,
        denoised=state(BATCH) if full else None,
        status=ints(BATCH),
        ticket=ints(BATCH),
        normals=normals,
        inputs=inputs,
        learned=full,
    )


def launches():
    """name -> (kernel, grid, arguments) of launches that between them use every part."""

    def one(name: str, args: StepArgs, widths: tuple[int, ...]):
        dtypes = (torch.bfloat16, torch.float32)
        outs = [
            args.net_in.new_empty(2 * BATCH, *STATE[1:], width * STATE[0], dtype=dtype).movedim(
                -1, 1
            )
            if args.slots.stride(2) == 1
            else torch.empty(2 * BATCH, width * STATE[0], *STATE[1:], dtype=dtype)
            for width, dtype in zip(widths, dtypes, strict=False)
        ]
        grid, changing, fixed = step.prepare(args, args.ticket, outs)
        return name, step_kernel, grid, changing | fixed

    yield one("step ddim", step_args(1, 0, 1), (1,))
    yield one("step ddim, channels last", step_args(1, 0, 1, last=True), (2,))
    yield one("step ancestral", step_args(1, 1, 1), (1,))
    yield one("step dpmpp_2m, guided", step_args(2, 0, 1, outputs=2), (1,))
    yield one("step general", step_args(5, 2, 2, full=True, outputs=4), (2, 1))
    yield one(
        "step general, channels last",
        step_args(5, 2, 2, last=True, full=True, outputs=4),
        (2, 1),
    )
    yield one("step ancestral, given to some", step_args(1, 1, 1, given=True), (1,))
    yield one(
        "step general, given to some", step_args(5, 2, 2, full=True, outputs=4, given=True), (2, 1)
    )
    for last in (False, True):
        out = torch.empty(BATCH, *STATE)
        if last:
            out = out.to(memory_format=torch.channels_last)
        end = ", channels last" if last else ""
        seed, row = torch.zeros(BATCH, dtype=torch.int64), torch.zeros(BATCH, dtype=torch.int32)
        index = torch.zeros(8, at.INDEX, dtype=torch.int32)
        for name, more in (("noise", ()), ("noise of rows", (row, index))):
            grid, changing, fixed = noise.prepare(NoiseArgs(out, seed, *more), 5, 0)
            yield name + end, noise._noise, grid, changing | fixed
        terms = torch.zeros(8, 1, at.HEADER + at.TERMS, dtype=torch.int32)
        paths = BrownianArgs(out[None], seed, row, terms, torch.zeros(8, 1, at.TERMS))
        yield "brownian" + end, *brownian.prepare(paths)
        args = NormsArgs(torch.empty(BATCH, 5, dtype=torch.float64), out, out)
        yield "norms" + end, *sums.prepare(args)
        if not last:
            yield "norms, merged", *sums.merging(args)
        q = torch.zeros(BATCH, dtype=torch.float64)
        yield "quantile" + end, *quantile.prepare(QuantileArgs(torch.empty(BATCH), out, q))


def norms() -> Iterator[tuple[str, object, tuple[int], dict[str, object]]]:
    """group_norm on small and large maps, plain and with all that it may have."""
    for (name, shape), dtype, last, full in itertools.product(
        (("small", (2, 256, 16, 16)), ("large", (1, 128, 256, 256)), ("odd", (1, 320, 62, 62))),
        (torch.bfloat16, torch.float32),
        (False, True),
        (False, True),
    ):
        layout = torch.channels_last if last else torch.contiguous_format
        x = torch.empty(shape, dtype=dtype).contiguous(memory_format=layout)
        line, column = torch.empty(shape[1], dtype=dtype), torch.empty(shape[:2], dtype=dtype)
        if full and (name == "odd" or dtype == torch.float32):
            continue
        more = {"scale": column, "shift": column, "residual": x, "summed": x} if full else {}
        args = GroupNormArgs(x, x, line, line, **more, groups=32, silu=True)
        tensors = dict(zip(group_norm.TENSORS, args.tensors(), strict=True))
        about = (
            f"{name} {str(dtype)[6:]}{', channels last' if last else ''}{', full' if full else ''}"
        )
        for stage in group_norm.stages(args):
            tensors |= stage.scratch(x)
            given = {key: tensors[key] for key in stage.changing}
            kernel = stage.kernel.__name__.strip("_")
            yield f"group_norm {kernel} {about}", stage.kernel, stage.grid, given | stage.fixed


def attentions() -> Iterator[tuple[str, object, tuple[int], dict[str, object]]]:
    """attention of the head dims of real networks and of the extremes."""
    dims = (8, 40, 64, 72, 80, 128, 160, 256)
    for dtype, dim in itertools.product((torch.bfloat16, torch.float32), dims):
        q = torch.empty(2, 4096, 8, dim, dtype=dtype).transpose(1, 2)
        grid, fixed = attention.prepare(AttentionArgs(q, q, q, q))
        given = dict.fromkeys(attention.TENSORS, q)
        yield f"attention {str(dtype)[6:]} {dim}", attention._attention, grid, given | fixed


def plain(listed: set[str]) -> Iterator[tuple[str, object, tuple[int], dict[str, object]]]:
    """The ops that none of the above is of, on the small arguments that they are tried with."""
    for (op, backend), where in IMPLEMENTATIONS.items():
        if backend == "triton" and op not in listed:
            args = definition(op).plain(torch.device("cpu"))
            yield op, *import_module(where.partition(":")[0]).prepare(args)


def assembled(ptx: str, arch: int) -> dict[str, int]:
    """Registers, spilled bytes and shared memory of one kernel."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        name = f"sm_{arch}a" if arch >= 90 else f"sm_{arch}"
        command = [get_ptxas(arch).path, "-v", "--fmad=false", f"-arch={name}", str(source)]
        done = subprocess.run(
            [*command, "-o", os.devnull], capture_output=True, text=True, check=True
        )

    def number(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, done.stderr)))

    return {
        "registers": number(r"Used (\d+) registers"),
        "spilled": number(r"(\d+) bytes spill"),
    }


def measured(arch: int, name: str, kernel, grid: tuple[int], arguments: dict) -> dict:
    compiled = kernel.warmup(grid=grid, **arguments)
    ptx = compiled.asm["ptx"]
    return {
        "kernel": name,
        "arch": arch,
        **assembled(ptx, arch),
        "shared": compiled.metadata.shared,
        # what would round otherwise than the definition
        "inexact": len(re.findall(r"\bfma\.|\bmad\.\w+\.f|\.approx|\.ftz", ptx)),
        "narrow": len(re.findall(r"\bld\.global[\w.:]*\.[bu]16\b", ptx)),
        "async": len(re.findall(r"\bcp\.async\.c[ag]\.", ptx)),
    }


def main() -> None:
    every, figures = "--all" in sys.argv[1:], []
    ops = tuple(word for word in sys.argv[1:] if word != "--all")
    listed = [*launches(), *norms(), *attentions()]
    listed += plain({name.partition(" ")[0].rstrip(",") for name, *_ in listed})
    for arch in ARCHS if every else ARCHS[-1:]:
        triton.runtime.driver.set_active(Elsewhere(arch))
        for name, *launch in listed:
            if name.startswith(ops or "") and (every or not RARE.match(name)):
                figures.append(measured(arch, name, *launch))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
