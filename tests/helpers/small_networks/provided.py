"""What becomes of a small network that another runtime runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_engine.native.lower import Refused
from diffusion_engine.providers.export import Model
from diffusion_engine.providers.onnxruntime import OnnxRuntime
from diffusion_engine.providers.opened import Setting
from diffusion_engine.providers.openvino import OpenVINO

from . import made
from .case import Called, Case
from .fate import BATCHES

WITHIN = 1e-4  # of the largest element, as of a network that a provider runs
LENGTH = 90  # of a reason
PROVIDERS = {"onnxruntime": OnnxRuntime, "openvino": OpenVINO}


def fates(name: str, names: Sequence[str] = tuple(PROVIDERS)) -> dict[str, Any]:
    """Of a network by each provider: what it differs by from the module, of the largest element, or why it is
    not run. `batch`: "any", or "each" where every size is exported on its own."""
    called, case = made(name)
    row: dict[str, Any] = {"network": name, "batch": ""}
    try:
        row["batch"], models = _exported(called, case)
    except Refused as refused:
        return row | {
            f"{n}_{part}": said for n in names for part, said in _refused(refused).items()
        }
    for provider in names:
        row |= {
            f"{provider}_{part}": v for part, v in _fate(provider, models, called, case).items()
        }
    return row


def _exported(called: Called, case: Case) -> tuple[str, dict[int, Model]]:
    try:
        whole = Model(called, case.of(2), dynamic=True)
        if all(map(whole.takes, BATCHES)):
            return "any", dict.fromkeys(BATCHES, whole)
    except Refused:
        pass
    return "each", {batch: Model(called, case.of(batch), dynamic=False) for batch in BATCHES}


def _fate(name: str, models: dict[int, Model], called: Called, case: Case) -> dict[str, str]:
    provider, worst = PROVIDERS[name](), 0.0
    for batch, model in models.items():
        given = case.of(batch)
        with torch.no_grad():
            wanted = [out.contiguous() for out in called(given)]
        outs = [torch.full_like(out, torch.nan) for out in wanted]
        shapes = [list(t.shape) for t in given] if provider.each else None
        try:
            with model.read() as source:
                session = provider.load(source, model, Setting(1), shapes, torch.float32)
            session.bound([t.contiguous() for t in given], outs)()
        except Exception as error:  # each runtime has classes of its own
            return _refused(error)
        worst = max([worst, *map(_difference, outs, wanted)])
    if not worst <= WITHIN:
        return {"error": f"{worst:.1e}", "refused": f"differs by {worst:.1e} of the largest"}
    return {"error": f"{worst:.1e}", "refused": ""}


def _difference(got: Tensor, wanted: Tensor) -> float:
    difference = float((got - wanted).abs().max() / wanted.abs().max())
    return difference if difference == difference else float("inf")


def _refused(error: Exception) -> dict[str, str]:
    """The line of an error that says the most, shortened."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    said = lines[-1] if lines else repr(error)
    return {"error": "", "refused": said if len(said) <= LENGTH else f"{said[: LENGTH - 3]}..."}
