"""Times functions of k-diffusion here and its own outside the model, which returns a ready tensor.

It needs k-diffusion's sampling.py with torchsde and torchdiffeq, as tests/golden/make_k_diffusion.py says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_engine.adapters import k_diffusion

from .. import results, shapes, timing
from ..agreement import Disagreement, difference
from ..peers import k_diffusion_alone
from ..timing import Task

STEPS = 20
SHAPES = ((1, 4, 64, 64), (4, 4, 128, 128))
TOLERANCE = 1e-5
# Names of functions, and whether they are given a noise_sampler, for both the same.
CASES = {"sample_euler": False, "sample_dpmpp_2m": False, "sample_dpmpp_2m_sde": True}


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    for shape in SHAPES:
        for case in CASES:
            if shapes.wanted(only, case, shape):
                yield partial(compare, device, repeats, case, shape)


def compare(
    device: torch.device, repeats: int, case: str, shape: tuple[int, ...]
) -> list[results.Row]:
    """Rows of a function's whole run without the model, ours and k-diffusion's, once they agree.

    Raises Disagreement where they do not, or where there is no k-diffusion.
    """
    found = k_diffusion_alone.modules()
    if found is None:
        raise Disagreement("k-diffusion's sampling.py cannot be loaded: see the file's first lines")
    sigmas = k_diffusion.get_sigmas_karras(STEPS, 0.03, 14.6, device=device)
    x = (
        torch.randn(shape, device=device, generator=torch.Generator(device).manual_seed(1))
        * sigmas[0]
    )
    functions = {"ours": getattr(k_diffusion, case), "k-diffusion": getattr(found[0], case)}
    # To draw normals costs both the same: they are ready.
    given = {"noise_sampler": _ready(x)} if CASES[case] else {}
    check(functions, x, sigmas, given)
    ready = torch.randn_like(x)
    runs = {
        name: partial(run, lambda x, sigma: ready, x, sigmas, disable=True, **given)
        for name, run in functions.items()
    }
    others = timing.Others()
    tasks = [Task(name, [run]) for name, run in runs.items()]
    times = timing.interleave(tasks, repeats, timing.clock(device))
    shared = {
        "op": "k_diffusion", "case": f"{case}, {STEPS} steps", "dtype": "float32",
        "shape": results.dims(shape), "layout": "contiguous", "repeats": repeats, "others": others.share(),
    }  # fmt: skip
    peer = times["k-diffusion"].median
    elements = math.prod(shape) * STEPS
    return [
        results.row(
            device, **shared, provider=name, **time.columns(),
            ns_per_element=time.median * 1e3 / elements,
            vs_best_torch=peer / time.median if name == "ours" else None,
        )
        for name, time in times.items()
    ]  # fmt: skip


def check(
    functions: dict[str, Callable[..., Tensor]], x: Tensor, sigmas: Tensor, given: dict[str, Any]
) -> None:
    """Raises Disagreement where the two make other samples of one denoiser."""
    ours, theirs = (run(_denoiser, x, sigmas, disable=True, **given) for run in functions.values())
    off = difference(ours, theirs)
    if off > TOLERANCE:
        raise Disagreement(f"the samples differ by {off:.2g}")


def _denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    return (x / sigma.view(-1, 1, 1, 1) ** 2).tanh()


def _ready(x: Tensor) -> Callable[[Any, Any], Tensor]:
    normals = torch.randn_like(x)
    return lambda sigma, sigma_next: normals
