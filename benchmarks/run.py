"""Times an op, a part of runs, or whole runs of a sampler, against the alternatives in one process:
python -m benchmarks.run --op step, --run sscs, --workload W1."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from . import ops, runs

if TYPE_CHECKING:
    from .results import Row

WORKLOADS = ("W1", "W2", "W4", "W5", "digits")
ON_ONE_THREAD = ("noise", "brownian")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    what = made.add_mutually_exclusive_group()
    what.add_argument("--op", choices=ops.NAMES, help="default: step")
    what.add_argument("--run", choices=runs.NAMES, help="a part of runs")
    what.add_argument("--workload", choices=WORKLOADS, help="whole runs of DDIM, end to end")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument(
        "--rows", default="", help="words of a case, shape or layout, all of which have to match"
    )
    made.add_argument("--repeats", type=int, help="default: 50; of whole runs 5, on a GPU 20")
    made.add_argument(
        "--threads", type=int, help=f"default: 1 for {' and '.join(ON_ONE_THREAD)}, 2 for all else"
    )
    made.add_argument("--no-save", action="store_true", help="print only")
    made.add_argument("--folder", type=Path, help="of the rows; default: benchmarks/results")
    whole = made.add_argument_group("with --workload")
    whole.add_argument("--peers", default="all", help="all, none, or names separated by commas")
    whole.add_argument("--steps", type=int, default=20)
    whole.add_argument("--batch", type=int, nargs="+", help="batches of the network's calls")
    whole.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"),
        help="of the network; default: float32, on a GPU bfloat16",
    )  # fmt: skip
    return made


def settle_environment(threads: int) -> None:
    """Starts over where OpenMP's settings are not set, which it reads once, when it is loaded."""
    wanted = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(threads)}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        again = [sys.executable, "-m", "benchmarks.run", *sys.argv[1:]]
        os.execve(sys.executable, again, os.environ | wanted)


def main() -> None:
    given = parser().parse_args()
    threads = given.threads or (1 if given.op in ON_ONE_THREAD else 2)
    settle_environment(threads)

    import torch

    from . import results

    results.FOLDER = given.folder or results.FOLDER
    torch.set_num_threads(threads)
    with torch.no_grad():
        if given.workload:
            from .runs import sampling

            sampling.main(given)
        else:
            measure(given)


def measure(given: argparse.Namespace) -> None:
    """Times an op or a part of runs."""
    import torch

    from . import comparisons, results

    name = f".runs.{given.run}" if given.run else f".ops.{given.op or 'step'}"
    found = import_module(name, __package__)
    rows: list[Row] = []

    def keep(more: list[Row]) -> None:
        for row in more:
            rows.append(row)
            results.show(row, header=len(rows) == 1)
        if not given.no_save:
            results.save(more)

    cases = found.measure(torch.device(given.device), given.repeats or 50, given.rows.split())
    failed = comparisons.compare_all(cases, keep)
    if not rows and not failed:
        sys.exit(f"nothing to time: no case, shape and layout hold {given.rows!r}")
    ratios = sorted(float(r["vs_best_torch"]) for r in rows if r["vs_best_torch"])
    if ratios:
        print(f"vs the best torch: worst {ratios[0]:.2f}, median {ratios[len(ratios) // 2]:.2f}")
    if rows and not given.no_save:
        print(f"{len(rows)} rows appended to {results.device_file(rows[0]['device'], '.csv')}")
    comparisons.finish(failed)


if __name__ == "__main__":
    main()
