"""Times an op, or whole runs of a sampler, against the alternatives in one process:
python -m benchmarks.run --op step, python -m benchmarks.run --workload W1."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results import Comparison, Row

OPS = (
    "step", "noise", "brownian", "group_norm", "attention", "conv3x3", "accelerate", "sscs",
)  # fmt: skip
WORKLOADS = ("W1", "W2", "W4", "W5", "digits")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    what = made.add_mutually_exclusive_group()
    what.add_argument("--op", choices=OPS, default="step")
    what.add_argument("--workload", choices=WORKLOADS, help="whole runs of DDIM, end to end")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument(
        "--rows", default="", help="words of a case, shape or layout, all of which have to match"
    )
    made.add_argument("--repeats", type=int, help="default: 50; of whole runs 5, on a GPU 20")
    made.add_argument(
        "--threads", type=int, help="default: 1 for noise and brownian, 2 for all else"
    )
    made.add_argument("--no-save", action="store_true", help="print only")
    made.add_argument("--folder", type=Path, help="of the rows; default: benchmarks/results")
    runs = made.add_argument_group("with --workload")
    runs.add_argument("--peers", default="all", help="all, none, or names separated by commas")
    runs.add_argument("--steps", type=int, default=20)
    runs.add_argument("--batch", type=int, nargs="+", help="batches of the network's calls")
    runs.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"),
        help="of the network; default: float32, on a GPU bfloat16",
    )  # fmt: skip
    return made


def settle_environment(threads: int) -> None:
    """OpenMP reads its settings once, when it is loaded: starts over where they are not set."""
    wanted = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(threads)}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        again = [sys.executable, "-m", "benchmarks.run", *sys.argv[1:]]
        os.execve(sys.executable, again, os.environ | wanted)


def main() -> None:
    given = parser().parse_args()
    threads = given.threads or (1 if given.op in ("noise", "brownian") else 2)
    settle_environment(threads)

    import torch

    from . import results

    results.FOLDER = given.folder or results.FOLDER
    torch.set_num_threads(threads)
    if given.workload:
        from . import sampling

        with torch.no_grad():
            sampling.main(given)
    else:
        measure_op(given)


def measure_op(given: argparse.Namespace) -> None:
    import torch

    from . import accelerate, brownian, convolutions, layers, noise, results, sscs, step

    measure = {
        "step": step.measure,
        "noise": noise.measure,
        "brownian": brownian.measure,
        "group_norm": layers.group_norm,
        "attention": layers.attention,
        "conv3x3": convolutions.measure,
        "accelerate": accelerate.measure,
        "sscs": sscs.measure,
    }[given.op]
    rows: list[results.Row] = []

    def keep(found: list[Row]) -> None:
        for row in found:
            rows.append(row)
            results.show(row, header=len(rows) == 1)
        if not given.no_save:
            results.save(found)

    with torch.no_grad():
        cases = measure(torch.device(given.device), given.repeats or 50, given.rows.split())
        failed = compare_all(cases, keep)
    if not rows and not failed:
        sys.exit(f"nothing to time: no case, shape and layout hold {given.rows!r}")
    ratios = sorted(float(r["vs_best_torch"]) for r in rows if r["vs_best_torch"])
    if ratios:
        print(f"vs the best torch: worst {ratios[0]:.2f}, median {ratios[len(ratios) // 2]:.2f}")
    if rows and not given.no_save:
        print(f"{len(rows)} rows appended to {results.device_file(rows[0]['device'], '.csv')}")
    finish(failed)


def compare_all(cases: Iterable[Comparison], keep: Callable[[list[Row]], None]) -> list[str]:
    """Keeps the rows of each case as they come. Returns why the others have none."""
    failed = []
    for compare in cases:
        try:
            keep(compare())
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")
            traceback.print_exc()
    return failed


def finish(failed: list[str]) -> None:
    """Ends the program with the failures, if there are any."""
    if failed:
        sys.exit("\n".join([f"{len(failed)} comparisons failed:", *failed]))


if __name__ == "__main__":
    main()
