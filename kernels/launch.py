"""The host's side of a Triton kernel: what it cannot take, and launching it with little ado."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import Lock
from typing import Any

import torch
import triton
from torch import Tensor

from ..backends.views import layout_objection

_interpreting = Lock()  # the interpreter keeps the place in the grid in a global


def interpreted(kernel: object) -> bool:
    """Whether TRITON_INTERPRET was set when the kernel's file was imported."""
    return not isinstance(kernel, triton.runtime.JITFunction)


def out_of_place(kernel: object, device: torch.device) -> str | None:
    """Why a kernel cannot run on tensors of a device; or None."""
    if device.type == "cuda" or interpreted(kernel):
        return None
    return (
        f"Triton works on CUDA tensors and these are on {device}; it interprets its kernels on "
        "any device where TRITON_INTERPRET=1 is set before the start"
    )


def objection_to(
    kernel: object, images: Mapping[str, Tensor], small: Mapping[str, Tensor | None]
) -> str | None:
    """Why a kernel cannot take images [B, C, *pixel] and small, contiguous tensors; or None."""
    device = next(t.device for t in (*images.values(), *small.values()) if t is not None)
    return out_of_place(kernel, device) or layout_objection(images, small)


def on_device(device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """What each launch enters, one of its own: it remembers the thread's device. Triton launches on the
    current one, which may be another where there are several."""
    several = device.type == "cuda" and torch.cuda.device_count() > 1
    return partial(torch.cuda.device, device) if several else nullcontext


def start(
    kernel: Any, grid: tuple[int], changing: dict[str, Any], fixed: dict[str, Any]
) -> Callable[..., None]:
    """Launches, and returns the launch with other values of `changing`, the kernel's first parameters.

    The values have to be like the first ones: equal types, equal layouts of tensors, addresses
    divisible by 16 or not. A plain launch finds that out anew each time, which took 100 us for the
    step's 38 arguments (200 us with Triton 3.6) on a slow core; handing them to the compiled kernel
    took 5.
    """
    names = tuple(changing)  # and no values: the launch would keep the first tensors alive
    if interpreted(kernel):

        def interpret(*values: Any) -> None:
            with _interpreting:
                kernel[grid](**dict(zip(names, values, strict=True)), **fixed)

        interpret(*changing.values())
        return interpret
    compiled = kernel[grid](**changing, **fixed)
    run = compiled[(*grid, 1, 1)]
    rest = [fixed[name] for name in kernel.arg_names[len(names) :]]
    return lambda *values: run(*values, *rest)


def bound(
    kernel: Any, grid: tuple[int], given: dict[str, Any], device: torch.device
) -> Callable[[], None]:
    """The launch of a kernel whose arguments stay as they are; the first compiles it."""
    entered = on_device(device)
    run: Callable[..., None] | None = None

    def launch() -> None:
        nonlocal run
        with entered():
            if run is None:
                run = start(kernel, grid, {}, given)
            else:
                run()

    return launch
