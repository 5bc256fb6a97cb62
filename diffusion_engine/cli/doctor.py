"""What is installed, what each op resolves to and why, and whether the backends agree."""

from __future__ import annotations

import platform
from typing import Any

import torch

from ..backends import machine
from ..choices import files, folder
from ..networks.placement import AUTO, place
from ..networks.text import WIDTHS, objection
from ..ops.registry import explain
from ..ops.table import IMPLEMENTATIONS
from ..profiling.versions import versions
from ..sampler import named


def report() -> dict[str, Any]:
    """Versions, devices, the choice for every op on every device, and a self-test of each backend."""
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return {
        "python": platform.python_version(),
        "packages": versions(),
        "devices": {device: _describe(device) for device in devices},
        "bf16": _bf16(),
        "executors": [_executor(name, devices[-1]) for name in named.NAMES],
        "native": _native(),
        "text": {name: objection(name) for name in WIDTHS},
        "choices": _kept(),
        "ops": [row for device in devices for row in _choices(device)],
        "self_test": [row for device in devices for row in _agreement(device)],
    }


def _describe(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    try:
        from .. import _cpu
    except ImportError:
        return f"{platform.machine()}, {torch.get_num_threads()} threads, C++ kernels not built"
    checks = " of a debug build" if _cpu.debug else ""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, {_cpu.isa()} kernels{checks}"


def _bf16() -> dict[str, Any]:
    """What bfloat16 runs on, and what dtype="auto" is on this CPU."""
    here = machine.bf16()
    chosen = place(torch.nn.Linear(1, 1), AUTO, "cpu")[0]
    auto = _name(chosen)
    tiles = machine.KINDS[machine.TILES]
    why = "" if here.kind == machine.TILES else f", and bfloat16 with {tiles} alone"
    result = f"{here.reason}; dtype='auto' is {auto} on this CPU{why}"
    return {"kind": here.kind, "slower": here.slower, "auto": auto, "result": result}


def _executor(name: str, last: str) -> dict[str, Any]:
    """Whether networks run by an executor here, and in what of its own; on the last device, if a GPU's."""
    device = last if name == "graph" else "cpu"
    runs = [d for d in named.COMPUTING.get(name, ()) if d == torch.float32 or machine.bf16().kind]
    try:
        reason = named.executor(name).objection(torch.device(device))
    except (ImportError, ValueError) as error:
        reason = str(error)
    return {
        "executor": name, "device": device, "dtypes": [_name(d) for d in runs], "reason": reason,
    }  # fmt: skip


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _kept() -> dict[str, Any]:
    """Where choices are kept, and of how many networks."""
    counts = {kind: len(list(files(kind))) for kind in KINDS}
    return {"folder": str(folder()), **counts}


def _native() -> dict[str, Any]:
    """Whether networks can be replayed here, and whether a small one comes to the module's values."""
    from ..native.executor import missing
    from ..networks.network import ScoreNetwork
    from ..processes import VP
    from ..sampler.sampler import Sampler

    reason = missing()
    if reason is not None:
        return {"ran": False, "ok": False, "result": reason}
    module = torch.nn.Conv2d(3, 3, 3, padding=1)
    network = ScoreNetwork(lambda x, label: module(x), VP(), (3, 5, 7))
    made, want = (
        Sampler(network, "ddim", 2, device="cpu", executor=name, threads=1)
        .sample(2, progress=False)
        .samples
        for name in ("native", "eager")
    )
    ok = torch.allclose(made, want, rtol=1e-4, atol=1e-4)
    said = "the module's values" if ok else "DIFFERS from the module"
    return {"ran": True, "ok": ok, "result": f"{said}; {NOT_RECORDED}"}


KINDS = ("threads", "forms", "executors")  # of what is chosen
NOT_RECORDED = "networks with a classifier's gradient or an exact derivative run eager there"


def _choices(device: str) -> list[dict[str, Any]]:
    rows = []
    for op in sorted({op for op, _ in IMPLEMENTATIONS}):
        reasons = explain(op, device)
        chosen = next((name for name, reason in reasons if reason is None), None)
        rows += [
            {
                "op": op,
                "device": device,
                "backend": name,
                "chosen": name == chosen,
                "reason": reason,
            }
            for name, reason in reasons
        ]
    return rows


def _agreement(device: str) -> list[dict[str, Any]]:
    """Runs a stochastic two-slot plan on every backend of the device against the torch reference."""
    from ..networks.network import ScoreNetwork
    from ..processes import VP
    from ..sampler.sampler import Sampler

    network = ScoreNetwork(lambda x, label: torch.where(x > 0, x * 0.5, x), VP(), (3, 5, 7))

    def samples(backend: str) -> torch.Tensor:
        sampler = Sampler(network, "dpmpp_2m_sde", 4, device=device, backend=backend)
        return sampler.sample(3, progress=False).samples

    rows = []
    expected = samples("torch")
    for name, reason in explain("step", device):
        if name == "torch":
            continue
        same = reason is None and torch.equal(samples(name), expected)
        result = reason or ("same bits as torch" if same else "DIFFERS from torch")
        rows.append(
            {"backend": name, "device": device, "ran": reason is None, "ok": same, "result": result}
        )
    return rows
