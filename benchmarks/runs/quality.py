"""Trajectories in bfloat16 beside those in float32: python -m benchmarks.runs.quality."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.backends.native import loaded
from diffusion_engine.providers import opened
from diffusion_engine.zoo import load_network

from .. import results
from . import classifier, engine
from .native.cases import CPU, NETWORKS, seeded

STEPS, GUIDANCE = 20, 2.0
SEEDS, PICTURES = 50, 8  # of each digit, and of W1
PEAK = 2.0  # the range of data in [-1, 1]
HALF = torch.bfloat16


@dataclass(frozen=True)
class Way:
    """An executor by its name, what the network is computed in, and what does the products in bfloat16: ""
    is the processor's best."""

    executor: str
    dtype: torch.dtype = torch.float32
    kind: str = ""


WAYS = {
    "torch": Way("eager"),
    "torch:bf16": Way("eager", HALF),
    "onnxruntime": Way("onnxruntime"),
    "openvino": Way("openvino"),
    "openvino:bf16": Way("openvino", HALF),
    "ours:native": Way("native"),
    "ours:native-bf16": Way("native", HALF),
    "ours:native-bf16, AMX emulated": Way("native", HALF, "emulated"),
}


@dataclass(frozen=True, eq=False)
class Trajectories:
    """DDIM from one noise, in calls of `batch` samples.

    given    conditions of the samples
    options  of Sampler
    label    the digit of each sample, where there are digits
    """

    network: ScoreNetwork
    noise: Tensor
    batch: int
    steps: int = STEPS
    given: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    label: Callable[[Tensor], Tensor] | None = None

    def sampler(self, network: ScoreNetwork, **how: Any) -> Sampler:
        return Sampler(network, "ddim", self.steps, batch_size=self.batch, **self.options, **how)

    def samples(self, sampler: Sampler) -> Tensor:
        return sampler.sample(x=self.noise, noised=True, progress=False, **self.given).samples

    def reference(self) -> Tensor:
        """The samples of torch's network in float32, with the state in float64."""
        inner = self.network.module

        def module(x: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
            own = t.float() if t.is_floating_point() else t
            return inner(x.float(), own, *condition).double()

        wide = self.sampler(self.network.with_module(module), dtype=torch.float64)
        return self.samples(wide)


def digits() -> Trajectories:
    """Guided samples of all digits."""
    asked = [*range(10)] * SEEDS
    network, _ = classifier.trained()
    return Trajectories(
        load_network("digits"), _noise(len(asked), (1, 32, 32)), 50, given={"condition": asked},
        options={"guidance": GUIDANCE}, label=partial(classifier.labelled, network),
    )  # fmt: skip


def w1() -> Trajectories:
    """Clipped, as its pipeline does: with random weights samples would leave the range of data."""
    run = NETWORKS["W1"].ddim_run(seeded("W1"), PICTURES, STEPS, CPU, torch.float32)
    network = engine.score_network(run, run.module)
    return Trajectories(network, run.noise, PICTURES, options={"clip": (-1.0, 1.0)})


CASES: dict[str, Callable[[], Trajectories]] = {"digits": digits, "W1": w1}


def _noise(count: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def psnr(found: Tensor, reference: Tensor) -> float:
    """10 log10(PEAK^2 / mean squared difference) over all samples, in dB."""
    mean = float((found.double() - reference).square().mean())
    return math.inf if mean == 0.0 else 10.0 * math.log10(PEAK**2 / mean)


@contextmanager
def products(kind: str) -> Iterator[None]:
    """Products in bfloat16 by a kind of instructions meanwhile."""
    cpu = loaded("_cpu")
    before = cpu.bf16()
    if kind:
        cpu.set_bf16(kind)
    try:
        yield
    finally:
        if kind and before:
            cpu.set_bf16(before)


def compare(name: str, case: Trajectories, ways: Mapping[str, Way]) -> Iterator[results.Row]:
    """Rows of all that run the network, also providers whose bfloat16 is beyond tolerance: how far is what is
    asked here. Of others the reason is printed."""
    reference = case.reference()
    for contender, way in ways.items():
        try:
            with products(way.kind), mock.patch.object(opened, "HALF_WITHIN", math.inf):
                sampler = case.sampler(case.network, executor=way.executor, dtype=way.dtype)
                found, form = case.samples(sampler), sampler.form
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            print(f"{contender} is left out of {name}: {said}", file=sys.stderr)
            continue
        yield row(name, contender, way, case, found, reference) | {"form": form}


def row(
    name: str, contender: str, way: Way, case: Trajectories, found: Tensor, reference: Tensor
) -> results.Row:
    known: results.Row = {
        "network": name, "contender": contender, "dtype": results.dtype_name(way.dtype),
        "samples": len(found), "steps": case.steps, "guidance": case.options.get("guidance", 1.0),
        "psnr_db": psnr(found, reference), "largest": float((found.double() - reference).abs().max()),
    }  # fmt: skip
    if case.label is not None:
        labels, asked = case.label(found), torch.tensor(case.given["condition"])
        known["changed"] = float((labels != case.label(reference)).float().mean())
        known["as_asked"] = float((labels == asked).float().mean())
        known["accuracy"] = classifier.trained()[1]
    return results.row(CPU, results.QUALITY_KEYS, **known)


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runs.quality", description=__doc__)
    made.add_argument("--contenders", nargs="+", choices=WAYS, default=[*WAYS])
    made.add_argument("--no-save", action="store_true", help="print only")
    given = made.parse_args()
    ways = {name: WAYS[name] for name in given.contenders}
    rows = []
    for name, make in CASES.items():
        for found in compare(name, make(), ways):
            results.show(found, not rows, results.QUALITY_SHOWN)
            rows.append(found)
    if not given.no_save:
        print(f"wrote {results.replace(rows, results.QUALITY)}")


if __name__ == "__main__":
    main()
