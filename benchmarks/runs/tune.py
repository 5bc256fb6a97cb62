"""Learned tables of the digits beside the best solvers of as many calls: python -m benchmarks.runs.tune."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from diffusion_engine import Sampler, learned
from diffusion_engine.compare import Fine, distance, fine_solution
from diffusion_engine.tuning import Progress, baselines, tune
from diffusion_engine.zoo import load_network

from .. import results

CALLS = (5, 6, 7, 8)
HELD, FINE = 100, 250  # seeds 0 to 99, ten of each digit, from which nothing is learned


def measure(calls: int, family: str, guidance: float, folder: Path | None) -> Iterator[results.Row]:
    """The distance of what is learned, and of the others each on its best grid, of the held-out seeds."""
    network, seeds = load_network("digits"), list(range(HELD))
    classes, fine = [seed % 10 for seed in seeds], solution(guidance)
    tuned = tune(network, calls, family, guidance=guidance, on_step=said)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        learned.write(tuned.table, folder / f"digits-{calls}.json")
    sampler = Sampler(network, "learned", table=tuned.table, guidance=guidance)
    made = sampler.sample(seeds=seeds, condition=classes, progress=False)
    shared = {"calls": calls, "guidance": guidance, "samples": HELD}
    yield row(
        **shared, contender=f"tuned:{family}", grid=f"from {tuned.begun.solver}, {tuned.begun.grid}",
        distance=distance(made.samples, fine), seconds=tuned.seconds, steps=tuned.steps,
    )  # fmt: skip
    for best in baselines(network, calls, fine, seeds, classes, guidance=guidance):
        yield row(**shared, contender=best.solver, grid=best.grid, distance=best.distance)


@cache
def solution(guidance: float) -> Tensor:
    network, seeds = load_network("digits"), list(range(HELD))
    classes = [seed % 10 for seed in seeds]
    return fine_solution(network, seeds, classes, fine=Fine.of(network, FINE), guidance=guidance)


def row(**known: str | int | float | None) -> results.Row:
    return results.row(torch.device("cpu"), results.TUNE_KEYS, **known)


def said(progress: Progress) -> None:
    done = f"step {progress.step} of {progress.steps}, {progress.seconds:.0f} s"
    print(f"{done}: {progress.distance:.4f}", file=sys.stderr, flush=True)


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runs.tune", description=__doc__)
    made.add_argument("--calls", type=int, nargs="+", default=CALLS)
    made.add_argument("--family", default="bns")
    made.add_argument("--guidance", type=float, default=1.0)
    made.add_argument("--tables", type=Path, help="a folder for the tables")
    made.add_argument("--no-save", action="store_true", help="print only")
    given = made.parse_args()
    rows: list[results.Row] = []
    for calls in given.calls:
        for found in measure(calls, given.family, given.guidance, given.tables):
            results.show(found, not rows, results.TUNE_SHOWN)
            rows.append(found)
    if not given.no_save:
        print(f"wrote {results.replace(rows, results.TUNE)}")


if __name__ == "__main__":
    main()
