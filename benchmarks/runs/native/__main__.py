"""Calls of recorded networks beside torch, ONNX Runtime and OpenVINO: python -m benchmarks.runs.native.

Every contender has a process for each setting of threads and waiting, which stands still while others are
timed. Rows of the parts that are not measured stay as they are.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import peers, results
from . import floor, memory, speed, worker
from .cases import CASES, NETWORKS, Case
from .contenders import CONTENDERS, EXPORTED, library

MEMORY, FLOOR = ("W1", "digits"), ("W1", "digits")


def main() -> None:
    given = parser().parse_args()
    if given.part:
        PARTS[given.part](given)
        return
    with tempfile.TemporaryDirectory() as folder:
        given.models = given.models or Path(folder)
        given.models.mkdir(parents=True, exist_ok=True)
        rows = measured(given)
    for i, row in enumerate(rows):
        results.show(row, i == 0, results.NATIVE_SHOWN)
    others = max(
        (float(str(row["others"] or 0)) for row in rows if row["load"] == "quiet"), default=0
    )
    where = (
        "not saved"
        if given.no_save
        else f"wrote {results.replace(kept(rows) + rows, results.NATIVE)}"
    )
    print(f"{where}; other processes took at most {others} of the quiet runs")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runs.native", description=__doc__)
    made.add_argument(
        "--busy", action="store_true", help="once more beside a process that takes a core"
    )
    made.add_argument("--floor", action="store_true", help="every operation beside its least time")
    made.add_argument("--memory", action="store_true", help="memory, and the seconds to be ready")
    made.add_argument(
        "--isa",
        choices=worker.ISAS,
        default="",
        help="times calls with no newer instructions than these",
    )
    made.add_argument("--no-speed", action="store_true", help="only the other parts")
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    made.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=[*CONTENDERS])
    made.add_argument("--repeats", type=int, default=5, help="rounds of turns of up to 60 calls")
    made.add_argument(
        "--models", type=Path, help="a folder that keeps what is exported for the next run"
    )
    made.add_argument("--no-save", action="store_true", help="print only")
    for name in ("part", "contender", "waiting", "network"):
        made.add_argument(f"--{name}", help=argparse.SUPPRESS)
    made.add_argument("--no-export", action="store_true", help=argparse.SUPPRESS)
    for name in ("threads", "batch"):
        made.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    return made


def measured(given: argparse.Namespace) -> list[results.Row]:
    names = [n for n in given.contenders if available(n)]
    prepare(given, export=any(library(n) in EXPORTED for n in names))
    cases, rows = [case for case in CASES if case.network in given.networks], []
    if not given.no_speed:
        loads = ("quiet", "busy") if given.busy else ("quiet",)
        for row in speed.measure(cases, names, given.models, given.repeats, loads, given.isa):
            results.show(row, not rows, results.NATIVE_SHOWN)
            rows.append(row)
    for case in cases:
        if given.memory and case.network in MEMORY:
            for name in names:
                rows += apart(given, "memory", case, threads=2, contender=name)
        if given.floor and case.network in FLOOR and "ours:native" in names:
            for threads in (1, 2):
                rows += apart(given, "floor", case, threads=threads)
    return rows


def available(name: str) -> bool:
    """Whether a contender's packages are here; says what is missing."""
    needs = library(name)
    lacking = peers.missing(needs) if needs in EXPORTED else []
    if needs == "openvino":  # it reads what is exported with those of the other
        lacking += peers.missing("onnxruntime")
    if lacking:
        print(f"{name} is left out: it needs {', '.join(lacking)}", file=sys.stderr)
    return not lacking


def prepare(given: argparse.Namespace, export: bool) -> None:
    """The files of all networks, the largest beside the others."""
    own = os.environ | {"OMP_NUM_THREADS": "1"}
    words = ["--part", "prepare", "--models", str(given.models), *(["--no-export"] * (not export))]
    groups = [[n for n in given.networks if (n == "W1") is large] for large in (True, False)]
    running = [
        subprocess.Popen(command(*words, "--networks", *group), env=own)
        for group in groups
        if group
    ]
    if any([process.wait() for process in running]):
        sys.exit("a network could not be exported")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.runs.native", *words]


def apart(
    given: argparse.Namespace, part: str, case: Case, threads: int, contender: str = ""
) -> list[results.Row]:
    """The rows of a part, measured in a process of its own."""
    words = [
        "--part",
        part,
        "--network",
        case.network,
        "--batch",
        str(case.batch),
        "--threads",
        str(threads),
    ]
    words += [
        "--repeats",
        str(given.repeats),
        "--contender",
        contender,
        "--models",
        str(given.models),
    ]
    own = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command(*words), env=own, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"{part} of {contender} at {case} failed", file=sys.stderr)
        return []
    return json.loads(done.stdout.splitlines()[-1])


def kept(rows: list[results.Row]) -> list[results.Row]:
    """The committed rows of the parts and networks that were not measured now."""
    path = results.FOLDER / results.NATIVE
    if not path.exists():
        return []
    now = {_known(row) for row in rows}
    with path.open(newline="") as file:
        old = [row for row in csv.DictReader(file) if _known(row) not in now]
    return [{key: row.get(key, "") for key in results.NATIVE_KEYS} for row in old]


def _known(row: Mapping[str, Any]) -> tuple:
    """What rows of one measurement have in common."""
    return row["part"], row["network"], row.get("isa") or "", row.get("load") or ""


def _worker(given: argparse.Namespace) -> None:
    worker.serve(given.contender, given.threads, given.waiting, given.models, given.isa)


def _prepare(given: argparse.Namespace) -> None:
    from .cases import Files

    for network in given.networks:
        Files(given.models).make(network, export=not given.no_export)


def _floor(given: argparse.Namespace) -> None:
    case = Case(given.network, given.batch)
    print(json.dumps(list(floor.measure(case, 3 * given.repeats, given.models))))


def _memory(given: argparse.Namespace) -> None:
    case = Case(given.network, given.batch)
    print(json.dumps([memory.measure(given.contender, case, given.threads, given.models)]))


PARTS = {"worker": _worker, "prepare": _prepare, "floor": _floor, "memory": _memory}

if __name__ == "__main__":
    main()
