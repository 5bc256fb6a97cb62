"""The AMX instructions of a call in bfloat16, counted where they are emulated: python -m benchmarks.runs.amx.

Nothing is timed: milliseconds are the cycles that so many instructions take at least.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import torch

from diffusion_engine.backends.native import loaded
from diffusion_engine.native import Native

from .. import results
from . import engine
from .native import floor
from .native.cases import CASES, CPU, NETWORKS, Case, seeded
from .native.contenders import HALF, call_of
from .quality import products

DOT, LOAD = 16, 8  # cycles from one to the next; a tile's load where it lies in the first cache
MULTIPLICATIONS = 16 * 16 * 32  # of a dot instruction
CLOCK, CORES = 2.0, 2  # GHz


def counted(case: Case) -> results.Row:
    """The row of one call, by one thread."""
    cpu = loaded("_cpu")
    run = NETWORKS[case.network].ddim_run(seeded(case.network), case.batch, 1, CPU, torch.float32)
    given, inputs = call_of(run)
    with products("emulated"):
        owner = Native(threads=1, dtype=HALF)
        recording = owner.recording(engine.score_network(run, run.module), given)
        program = owner.program(recording, case.batch)
        cpu.bf16_reset()
        program(inputs)
        counts = cpu.bf16_counts()
        packed = recording.packed
        operations = recording._graph.at(case.batch, packed.joint, packed.folded).operations
    wanted = sum(floor.flop(operations[i]) for i in program.half) // 2
    about = {"network": case.network, "batch": case.batch, "threads": 1}
    return results.row(CPU, results.AMX_KEYS, **about, **priced(counts, wanted))


def priced(counts: Mapping[str, int], wanted: int) -> results.Row:
    """The columns of so many dots, loads and stores.

    wanted  multiplications of the products that they do
    """
    done = counts["dots"] * MULTIPLICATIONS
    dots, loads = counts["dots"] * DOT, counts["loads"] * LOAD
    return {
        **counts, "wanted": wanted * 1e-9, "done": done * 1e-9, "useful": wanted / done,
        "dot_cycles": dots, "load_cycles": loads, "ms": max(dots, loads) / (CLOCK * CORES) * 1e-6,
    }  # fmt: skip


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runs.amx", description=__doc__)
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=["W1", "digits"])
    made.add_argument("--no-save", action="store_true", help="print only")
    given = made.parse_args()
    rows = []
    for case in CASES:
        if case.network in given.networks:
            rows.append(counted(case))
            results.show(rows[-1], len(rows) == 1, results.AMX_SHOWN)
    if not given.no_save:
        print(f"wrote {results.replace(rows, results.AMX)}")


if __name__ == "__main__":
    main()
