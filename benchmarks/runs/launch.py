"""Launches the CUDA kernels at shapes of real networks, for compute-sanitizer and ncu to look at:
python -m benchmarks.runs.launch step attention:40."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffusion_engine.ops import functional

from ..ops.step.cases import CASES, Buffers, engine

Launch = Callable[[], object]


def step(name: str) -> Launch:
    case = next(case for case in CASES if case.name == name)
    shape = (16, 3, 256, 256)
    return engine(Buffers(case, shape, "contiguous", torch.bfloat16, torch.device("cuda")), "cuda")


def group_norm(channels: int, side: int) -> Launch:
    x = torch.randn(2, channels, side, side, device="cuda", dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last)
    w, b = torch.randn(2, channels, device="cuda", dtype=torch.bfloat16)
    return partial(functional.group_norm, x, 32, w, b, silu=True, backend="cuda")


def attention(dim: int, tokens: int) -> Launch:
    def made() -> Tensor:
        return torch.randn(2, tokens, 8, dim, device="cuda", dtype=torch.bfloat16).transpose(1, 2)

    return partial(functional.attention, made(), made(), made(), backend="cuda")


LAUNCHES: dict[str, Callable[[], Launch]] = {
    "step": partial(step, "ddim"),
    "step:noise": partial(step, "ddpm"),
    "norm": partial(group_norm, 320, 64),
    "norm:large": partial(group_norm, 128, 256),
    "attention:40": partial(attention, 40, 1024),
    "attention:64": partial(attention, 64, 4096),
    "attention:128": partial(attention, 128, 4096),
}


def main() -> None:
    names = sys.argv[1:] or [*LAUNCHES]
    if unknown := [name for name in names if name not in LAUNCHES]:
        sys.exit(f"no launch {', '.join(unknown)}; there are {', '.join(LAUNCHES)}")
    for name in names:
        launch = LAUNCHES[name]()
        for _ in range(2):
            launch()
        torch.cuda.synchronize()
        print(f"launched {name}", flush=True)


if __name__ == "__main__":
    main()
