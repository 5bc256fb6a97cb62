"""The networks that are called, and the files that all contenders read."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ...ddim_run import DDIMRun, linear
from ..networks import diffusers, weights
from ..workloads import WORKLOADS, Eps, Workload

STEPS = 20  # of the trajectories
CPU = torch.device("cpu")


def _policy() -> nn.Module:
    return Eps(weights(diffusers.policy()))


def _dit() -> nn.Module:
    """Two of W5's blocks: all 28 are the same, and take a CPU seconds."""
    return Eps(weights(diffusers.dit(layers=2)), class_labels=torch.tensor([207]))


NETWORKS = {
    "digits": WORKLOADS["digits"],
    "W1": WORKLOADS["W1"],
    "policy": Workload(_policy, (7, 16), linear, {"cpu": (1,)}),
    "DiT": Workload(_dit, (4, 32, 32), linear, {"cpu": (1,)}),
}


@dataclass(frozen=True)
class Case:
    """A call of `batch` entries; `run` where whole trajectories are timed too."""

    network: str
    batch: int
    run: bool = False

    def __str__(self) -> str:
        return f"{self.network}-{self.batch}"


CASES = [
    Case(name, batch, run=name == "digits")
    for name, workload in NETWORKS.items()
    for batch in workload.batches["cpu"]
]


def seeded(network: str) -> nn.Module:
    """The same network in every process: its biases too are drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETWORKS[network].network().eval()


class Files:
    """What is made once, in a folder: exact outputs, exports and the seconds of these."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ddim_run(self, case: Case, module: bool = True) -> DDIMRun:
        """module: without it the network is nothing, and takes no memory."""
        made = NETWORKS[case.network].ddim_run(nn.Identity(), case.batch, STEPS, CPU, torch.float32)
        if not module:
            return made
        return replace(made, module=seeded(case.network))

    def onnx(self, case: Case) -> Path:
        return self.folder / f"{case}.onnx"

    def exact(self, case: Case) -> dict[str, Tensor]:
        """The output of a call in float64, and the samples with the state in float64."""
        return safetensors.torch.load_file(self.folder / f"{case}-exact.safetensors")

    def said(self, case: Case) -> dict[str, Any]:
        path = self.folder / f"{case}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def make(self, network: str, export: bool) -> None:
        """All files of a network that are not there."""
        cases = [case for case in CASES if case.network == network]
        if all((self.folder / f"{case}.json").exists() for case in cases):
            return
        for case in cases:
            run = self.ddim_run(case)
            exact = {"call": exact_output(run)} | ({"run": run.reference()} if case.run else {})
            safetensors.torch.save_file(exact, self.folder / f"{case}-exact.safetensors")
            said = {}
            if export:
                from ...peers import onnxruntime

                began = time.perf_counter()
                self.onnx(case).write_bytes(onnxruntime.exported(run))
                said["export_s"] = time.perf_counter() - began
            (self.folder / f"{case}.json").write_text(json.dumps(said))


def first(ddim_run: DDIMRun) -> int:
    """The timestep of the calls that are timed."""
    return ddim_run.schedule.timesteps(ddim_run.steps)[0]


def exact_output(ddim_run: DDIMRun) -> Tensor:
    network = ddim_run.network().double()
    with torch.inference_mode():
        return network(ddim_run.noise.double(), torch.tensor(first(ddim_run)))
