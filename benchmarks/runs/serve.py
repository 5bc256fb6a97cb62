"""An engine under load beside static batches, one request at a time and lockstep: python -m
benchmarks.runs.serve.

The digits network, 16 seats, mixes of solvers and of 5 to 50 steps. Every contender runs with 1 and 2 threads
that wait passively and actively, each setting in a process of its own, and the best of each counts: all on
the eager executor, and all on the native one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter

import torch

from diffusion_engine import Sampler
from diffusion_engine.native import Native
from diffusion_engine.profiling.serve import DEFAULT, Bench, Kind, at_once
from diffusion_engine.profiling.serve.drive import drive
from diffusion_engine.profiling.serve.peers import in_turn
from diffusion_engine.profiling.serve.report import Line, line
from diffusion_engine.zoo import load_network

from .. import results
from ..timing import Others, Spread
from . import serve_host

SEATS, LOAD, STEPS = 16, 0.8, 20
EXECUTORS = ("eager", "native")
SETTINGS = [(threads, waiting) for threads in (1, 2) for waiting in ("passive", "active")]
SOLVERS = ("ddim", "dpmpp_2m", "unipc", "euler_ancestral", "dpmpp_2m_sde")
# Every step count as often: the least that continuous batching can gain.
EVEN = tuple(
    Kind.model_validate({"spec": {"solver": SOLVERS[i % len(SOLVERS)], "steps": 5 * i + 5}})
    for i in range(10)
)
MIXES = {"short": DEFAULT, "even": EVEN}


def main() -> None:
    given = parser().parse_args()
    if given.part:
        rows = PARTS[given.part](given)
        print(json.dumps(rows))
        return
    rows = []
    for executor in given.executors:
        own = [row for s in SETTINGS for row in apart("speed", *s, given, executor=executor)]
        for name in MIXES:
            best = fastest(own, name, "engine")
            setting = int(str(best["threads"])), str(best["waiting"])
            rate = LOAD * float(str(best["images_s"]))
            own += apart("load", *setting, given, mix=name, rate=rate, executor=executor)
        rows += own
    rows += apart("own", 1, "passive", given)
    for i, row in enumerate(rows):
        results.show(row, i == 0, results.SERVE_SHOWN)
    others = max(float(str(row["others"] or 0)) for row in rows)
    where = "not saved"
    if not given.no_save:
        where = f"wrote {results.replace(kept(given) + rows, results.SERVE)}"
    print(f"{where}; other processes took at most {others}")


def kept(given: argparse.Namespace) -> list[results.Row]:
    """The committed rows of executors that were not measured now."""
    path = results.FOLDER / results.SERVE
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            row
            for row in csv.DictReader(file)
            if row["executor"] and row["executor"] not in given.executors
        ]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runs.serve", description=__doc__)
    made.add_argument("--requests", type=int, default=640)
    made.add_argument("--repeats", type=int, default=1)
    made.add_argument("--executors", nargs="+", default=EXECUTORS, choices=EXECUTORS)
    made.add_argument("--no-save", action="store_true", help="print only")
    for name in ("part", "mix", "waiting", "executor"):
        made.add_argument(f"--{name}", help=argparse.SUPPRESS)
    made.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    return made


def apart(
    part: str,
    threads: int,
    waiting: str,
    given: argparse.Namespace,
    mix: str = "",
    rate: float = 1.0,
    executor: str = "",
) -> list[results.Row]:
    """The rows of a part, measured in a process whose threads wait so."""
    words = [
        "--part", part, "--waiting", waiting, "--mix", mix, "--rate", str(rate), "--executor", executor,
        "--requests", str(given.requests), "--repeats", str(given.repeats),
    ]  # fmt: skip
    own = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": waiting}
    command = [sys.executable, "-m", "benchmarks.runs.serve", *words]
    done = subprocess.run(
        command, env=os.environ | own, stdout=subprocess.PIPE, check=True, text=True
    )
    rows: list[results.Row] = json.loads(done.stdout)
    return rows


def fastest(rows: list[results.Row], mix: str, contender: str) -> results.Row:
    """A contender's row in its best setting."""
    own = [
        r for r in rows if r["mix"] == mix and r["contender"] == contender and r["load"] == "all"
    ]
    return max(own, key=lambda row: float(str(row["images_s"])))


def speed(given: argparse.Namespace) -> list[results.Row]:
    """All requests at once with every contender in turn; and the network's own calls."""
    rows = []
    for name, mix in MIXES.items():
        with _bench(given, mix) as bench:
            load = at_once(bench.load(given.requests, 1.0))
            images = sum(len(one.seeds) for one in load)
            took: dict[str, list[float]] = {}
            taken: dict[str, float | None] = {}
            others = Others()
            for i in range(given.repeats):
                for who, run in _contenders(bench, load)[:: 1 if i % 2 else -1]:
                    seconds, taken[who] = run()
                    took.setdefault(who, []).append(seconds / images)
            for who, each in took.items():
                about = {"occupancy": taken[who]} | _rates(Spread.of(each))
                rows.append(_row(given, others, mix=name, contender=who, load="all", **about))
    return rows + _calls(given)


@contextmanager
def _bench(given: argparse.Namespace, mix: tuple[Kind, ...]) -> Iterator[Bench]:
    """The contenders of a mix, warm."""
    network = load_network("digits")
    with Bench(network, mix, SEATS, given.requests, executor=_shared(given.executor)) as bench:
        bench.warm()
        yield bench


def _shared(name: str) -> str | Native:
    """An executor for all samplers: what one has recorded of a network the others need not."""
    return Native() if name == "native" else name


def _contenders(
    bench: Bench, load: list
) -> list[tuple[str, Callable[[], tuple[float, float | None]]]]:
    """What runs a load, and gives its seconds and the share of the seats that were taken."""
    part = load[: len(load) // 4]  # each by itself takes as long as it takes

    def driven(name: str) -> tuple[float, float | None]:
        course = drive(bench.engines[name], load)
        return course.seconds, course.occupancy

    def alone() -> tuple[float, None]:
        return sum(whole for _, whole in bench.peers.alone(part)) * len(load) / len(part), None

    return [
        ("engine", partial(driven, "engine")),
        ("static", partial(driven, "static")),
        ("one at a time", alone),
        ("lockstep", lambda: (bench.peers.lockstep(load), 1.0)),
    ]


def _calls(given: argparse.Namespace) -> list[results.Row]:
    """A row of the network alone, at batches of 1 and of all seats: what batching can gain at most."""
    rows = []
    for count in (1, SEATS):
        sampler = Sampler(load_network("digits"), "ddim", STEPS, executor=given.executor)
        seconds, others = [], Others()
        for i in range(2 * given.repeats + 3):
            began = perf_counter()
            sampler.sample(count, condition=0)
            seconds += [(perf_counter() - began) / STEPS] if i else []
        spread = Spread.of(seconds)
        rows.append(_row(given, others, contender=f"network of {count}", us_row=spread.median))
    return rows


def load(given: argparse.Namespace) -> list[results.Row]:
    """Requests as they come, at a share of what the engine can."""
    rows = []
    with _bench(given, MIXES[given.mix]) as bench:
        coming = bench.load(given.requests * max(1, given.repeats // 2), given.rate)
        for name in ("engine", "static"):
            others = Others()
            course = drive(bench.engines[name], coming)
            rows.append(_late(given, others, line(name, 0.0, course)))
        others = Others()
        took = bench.peers.alone(coming[: given.requests // 4])
        again = [took[i % len(took)] for i in range(len(coming))]
        rows.append(_late(given, others, line("one at a time", 0.0, in_turn(coming, again))))
    return rows


def own(given: argparse.Namespace) -> list[results.Row]:
    """The engine's own time."""
    others = Others()
    spread = serve_host.own(400 * given.repeats)
    return [
        _row(given, others, contender="own", us_row=spread.median, p20=spread.p20, p80=spread.p80)
    ]


PARTS = {"speed": speed, "load": load, "own": own}


def _late(given: argparse.Namespace, others: Others, found: Line) -> results.Row:
    quantiles = {
        f"{what}_p{q}_ms": 1e3 * value
        for what, values in (("latency", found.latency), ("preview", found.preview))
        for q, value in zip((50, 95, 99), values, strict=False)
    }
    return _row(
        given, others, mix=given.mix, contender=found.name, load=LOAD, images_s=found.images_s,
        occupancy=found.occupancy, **quantiles,
    )  # fmt: skip


def _rates(spread: Spread) -> dict[str, float]:
    return {"images_s": 1e6 / spread.median, "p20": 1e6 / spread.p80, "p80": 1e6 / spread.p20}


def _row(given: argparse.Namespace, others: Others, **known: object) -> results.Row:
    about = {name: vars(given)[name] for name in ("waiting", "executor", "requests", "repeats")}
    share = {"others": others.share()}
    return results.row(torch.device("cpu"), results.SERVE_KEYS, **about | share | known)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
