"""What becomes of a small network when it is recorded."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import torch

from diffusion_engine import _cpu
from diffusion_engine.native import reference
from diffusion_engine.native.lower import Refused
from diffusion_engine.native.program import Program
from diffusion_engine.native.record import Graph
from diffusion_engine.native.weights import Weights

from . import made

BATCHES = (1, 3)


@dataclass(frozen=True)
class Fate:
    """operations  of a call
    callbacks   the operations of torch among them, by how often
    refused     why it is not recorded
    """

    operations: int = 0
    callbacks: str = ""
    refused: str = ""

    def row(self, name: str) -> dict[str, str]:
        return {"network": name, **{key: str(value) for key, value in asdict(self).items()}}


def fate(name: str) -> Fate:
    """Records a network and compares it with the module; fails where they differ."""
    called, case = made(name)
    try:
        graph = Graph(called, case.of(2))
    except Refused as refused:
        return Fate(refused=str(refused))
    weights, kept, outs = Weights(), ({}, {}), {}
    for batch in BATCHES:
        recorded, given = graph.at(batch, *kept), case.of(batch)
        with torch.no_grad():
            wanted = called(given)
        program = Program(recorded, _cpu.Pool(1), weights)
        assert_near(reference.run(recorded, given), wanted)
        outs[batch] = [out.clone() for out in program(given)]
        assert_near(outs[batch], wanted)
    if not program.called:
        for alone, beside in zip(*(outs[batch] for batch in BATCHES), strict=True):
            assert torch.equal(alone[0], beside[0]), "a sample's bits depend on its batch"
    counts = Counter(name.removeprefix("torch ").partition(".")[0] for name in program.called)
    said = ", ".join(f"{n} {count}" if count > 1 else n for n, count in sorted(counts.items()))
    return Fate(len(recorded.operations), said)


def assert_near(got: list[torch.Tensor], wanted: tuple[torch.Tensor, ...]) -> None:
    """1e-4 of the largest element."""
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        error, largest = (one - other).abs().max(), other.abs().max()
        assert error <= 1e-4 * largest, f"{error:.1e} of {largest:.1e}"
