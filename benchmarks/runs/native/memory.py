"""The memory of a process with one contender, and how long it takes to be ready."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from ... import results
from ..memory import growth, resident
from .cases import CPU, Case, Files
from .contenders import CONTENDERS, EXPORTED, Place, dtype_said, library

CALLS = 3


def measure(contender: str, case: Case, threads: int, folder: Path) -> results.Row:
    """Growth over what the process has once the libraries are loaded.

    `peak_mb` until it is ready and has been called, `held_mb` the peak of calls from there on; the module is
    part where torch or a recording needs it.
    """
    files, make = Files(folder), CONTENDERS[contender].make
    exported = library(contender) in EXPORTED
    import_libraries(contender)
    with growth(CPU) as peak:
        before = resident()
        began = time.perf_counter()
        made = make(Place(files, case, threads, ""))
        first = time.perf_counter() - began
        for _ in range(CALLS):
            made.call()
    left = resident() - before
    with growth(CPU) as more:
        for _ in range(CALLS):
            made.call()
    further = None
    if made.further is not None:
        began = time.perf_counter()
        made.further()
        further = time.perf_counter() - began
    return results.row(
        CPU, results.NATIVE_KEYS, part="memory", network=case.network, batch=case.batch, contender=contender,
        dtype=dtype_said(contender), threads=threads, peak_mb=max(peak, default=None),
        held_mb=left + max(more, default=0.0), first_s=first, further_s=further,
        export_s=files.said(case).get("export_s") if exported else None, version=made.version,
    )  # fmt: skip


def import_libraries(contender: str) -> None:
    """What would otherwise count as the contender's own: the libraries of each are there before the count,
    those that torch.export imports when it is first called as those of a peer. A process pays for all of
    them, whatever network it runs."""
    import diffusers.models.transformers
    import diffusers.models.unets
    import diffusers.schedulers  # noqa: F401

    import diffusion_engine.accelerate
    import diffusion_engine.native.recording  # noqa: F401

    if contender.startswith("ours:native"):
        torch.export.export(torch.nn.Identity(), (torch.zeros(2),))
    if library(contender) == "onnxruntime":
        import onnxruntime  # noqa: F401
    if library(contender) == "openvino":
        import openvino

        openvino.Core().available_devices  # noqa: B018 (loads the plugin)
