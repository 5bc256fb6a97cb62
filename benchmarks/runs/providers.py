"""Rows of samplers by every executor, and by "auto": python -m benchmarks.runs.providers.

A row is a call of the network and its step. The samplers of a case are of one process, and their rows are
timed in turn.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_engine import Plan, Sampler
from diffusion_engine.choices.kept import VARIABLE
from diffusion_engine.executors import Capacity, Job

from .. import results
from ..agreement import Disagreement, difference
from ..ddim_run import TRAINED
from ..timing import Others, Spread
from . import engine
from .native import speed
from .native.cases import CASES, CPU, NETWORKS, Case, seeded
from .native.contenders import Ready
from .native.worker import timed

STEPS = 4  # of the samples that have to agree
EXECUTORS = ("eager", "native", "onnxruntime", "openvino", "auto")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WITHIN = {"float32": 1e-3, "bfloat16": 0.2}  # of the largest element of the samples


class Rows:
    """The rows of a batch of samples, which begin again where they end."""

    def __init__(self, contender: str, sampler: Sampler, plan: Plan, samples: int) -> None:
        self.contender = contender
        room = Capacity.of(sampler.network, [plan], samples, device=CPU, dtype=sampler.input_dtype)
        self.batch = sampler.executor.open(sampler.network, room)
        self.jobs = [Job(plan, seed) for seed in range(samples)]
        self.ready = Ready(self.row, lambda: torch.empty(0))

    def row(self) -> None:
        if not self.batch.live:
            self.batch.clear()
            for job in self.jobs:
                self.batch.admit(job)
        self.batch.step()

    def ask(self, do: str, of: dict[str, Any]) -> dict[str, Any]:
        """What a contender's process answers (native/worker.py), in this one."""
        return timed(self.ready, self.row, **of)


def compare(case: Case, executors: Sequence[str], dtype: str, rounds: int) -> Iterator[results.Row]:
    """The rows of a case. Raises Disagreement where samples are not those of torch's network in float32."""
    made = partial(NETWORKS[case.network].ddim_run, seeded(case.network), case.batch)
    short, long = (made(steps, CPU, torch.float32) for steps in (STEPS, TRAINED))
    want, plan = short.reference(), engine.sampler(long, long.module).plan()
    samplers, errors = {}, {}
    for name in executors:
        threads = "measured" if name == "eager" else None
        how = {"executor": name, "threads": threads, "dtype": DTYPES[dtype]}
        try:
            sampler = engine.sampler(short, short.network(), **how)
            found = sampler.sample(x=short.noise, noised=True, progress=False).samples
        except (ValueError, ImportError) as error:
            print(f"{name} is left out of {case}: {error}", file=sys.stderr)
            continue
        samplers[name], errors[name] = sampler, agreeing(f"{name} at {case}", found, want, dtype)
    turns: list[Any] = [Rows(name, one, plan, case.batch) for name, one in samplers.items()]
    others = [0.0, 0.0, 0.0]
    took = speed.interleaved(turns, "call", rounds, others)
    best = min(
        (Spread.of(s).median for turn, s in took.items() if turn.contender != "auto"), default=None
    )
    for turn, seconds in took.items():
        spread, sampler = Spread.of(seconds), samplers[turn.contender]
        auto: dict[str, Any] = {}
        if turn.contender == "auto":
            auto["chosen"] = chosen(sampler)
            auto["of_best"] = None if best is None else spread.median / best
        yield results.row(
            CPU, results.PROVIDER_KEYS, network=case.network, batch=case.batch,
            executor=turn.contender, dtype=dtype, ms=spread.median / 1e3, p20_ms=spread.p20 / 1e3,
            p80_ms=spread.p80 / 1e3, error=errors[turn.contender], repeats=len(seconds),
            form=sampler.form, others=Others.share_of(*others), **auto,
        )  # fmt: skip


def agreeing(who: str, found: Tensor, want: Tensor, dtype: str) -> float:
    """How far samples are off. Raises Disagreement where it is too far."""
    off = difference(found, want)
    if not off <= WITHIN[dtype]:
        raise Disagreement(f"{who}: its samples are off by {off:.2g}")
    return off


def chosen(sampler: Sampler) -> str:
    """Which executor auto kept."""
    found = sampler.choice
    print(found, file=sys.stderr)
    return found.kept.name


def main() -> None:
    given = parser().parse_args()
    cases = [case for case in CASES if case.network in given.networks]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = folder  # nothing is known of earlier choices
        for case in cases:
            for row in compare(case, given.executors, given.dtype, given.repeats):
                results.show(row, not rows, results.PROVIDERS_SHOWN)
                rows.append(row)
    if not given.no_save:
        print(f"wrote {results.replace(rows, results.PROVIDERS)}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runs.providers", description=__doc__)
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    made.add_argument("--executors", nargs="+", choices=EXECUTORS, default=[*EXECUTORS])
    made.add_argument("--dtype", choices=DTYPES, default="float32")
    made.add_argument("--repeats", type=int, default=12, help="rounds of turns of up to 60 rows")
    made.add_argument("--no-save", action="store_true", help="print only")
    return made


if __name__ == "__main__":
    main()
