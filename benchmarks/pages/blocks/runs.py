"""Whole runs and parts of them, from the rows of benchmarks.run --workload and --run."""

from __future__ import annotations

from collections.abc import Sequence

from .. import rows
from ..rows import Row
from .ops import FILE, committed, ms

RUNS = "amd-epyc-25.1-runs.csv"
JOINING = "amd-epyc-25.17.csv"


def workload(name: str) -> list[Row]:
    """The latest rows of a workload, those of a batch side by side."""
    return rows.some(rows.latest_runs(rows.committed(RUNS)), workload=name)


def accelerate() -> str:
    """A call of W1, as diffusers runs it and accelerated, at every time it was measured."""
    found = rows.some(rows.committed(FILE), op="accelerate", case="W1")
    body = []
    for (_, shape), same in rows.grouped(found, "commit", "shape"):
        ours = rows.one(same, provider="ours:accelerate")
        others = [
            rows.one(same, provider=name) for name in ("diffusers", "diffusers:channels_last")
        ]
        times = [ms(row) for row in (*others, ours)]
        ratio = rows.times(float(ours["vs_diffusers"]))
        body.append([ours["date"].partition("T")[0], shape.partition("x")[0], *times, ratio])
    head = ["measured", "batch", "diffusers", "in channels_last", "accelerated", "faster by"]
    return _below(rows.lines(head, body), found, "--run accelerate")


def W1() -> str:
    """DDIM on a DDPM U-Net from end to end."""
    return _whole("W1")


def digits() -> str:
    """DDIM on the shipped network from end to end."""
    return _whole("digits")


def _whole(name: str) -> str:
    found = workload(name)
    batches = [(shape, same) for (shape,), same in rows.grouped(found, "shape")]
    head, body = ["contender"], {row["contender"]: [row["contender"]] for row in found}
    for shape, same in batches:
        batch = shape.partition("x")[0]
        head += [f"batch {batch}: ms an image", "us a step outside"]
        of = {row["contender"]: row for row in same}
        for who, line in body.items():
            row = of.get(who)
            keys = ("ms_per_image", "outside_us")
            line += [rows.number(float(row[key])) if row else "" for key in keys]
    said = [_said(shape, same) for shape, same in batches]
    return _below(rows.lines(head, list(body.values())), found, f"--workload {name}", *said)


def _said(shape: str, same: list[Row]) -> str:
    """Ours against the best peer."""
    ours, peer = (
        min((row for row in same if bool(row["vs_best_peer"]) is our), key=time)
        for our in (True, False)
    )
    ratio, batch = time(peer) / time(ours), shape.partition("x")[0]
    if ratio < 1:
        by = rows.times(1 / ratio)
        return f"At batch {batch} the best peer, {peer['contender']}, is {by} as fast as ours."
    by = rows.times(ratio)
    return f"At batch {batch} ours is {by} as fast as the best peer, {peer['contender']}."


def time(row: Row) -> float:
    return float(row["ms_per_image"])


def sscs() -> str:
    """SSCS outside the network against loops of plain torch."""
    names = {
        "ours": "ours",
        "plain:published": "the published loop",
        "plain:merged": "half-steps merged by hand",
    }
    found = committed("sscs")
    ours = float(rows.one(found, provider="ours")["median_us"])
    body = []
    for provider, name in names.items():
        row = rows.one(found, provider=provider)
        ratio = "" if provider == "ours" else rows.times(float(row["median_us"]) / ours)
        body.append([name, ms(row), ratio])
    table = rows.lines([f"{row['case']}, {row['shape']}", "time", "ours is faster by"], body)
    return _below(table, found, "--run sscs")


def joining() -> str:
    """A row of a batch in lockstep, and of one that a sample leaves and joins before every row."""
    found = committed("joining", JOINING)
    body = []
    for (shape,), same in rows.grouped(found, "shape"):
        for case in dict.fromkeys(row["case"].partition(",")[0] for row in same):
            cells = [
                rows.number(
                    float(rows.one(same, case=f"{case}, {kind}", provider=who)["median_us"])
                )
                for who in ("ours:auto", "ours:host")
                for kind in ("lockstep", "joining")
            ]
            body.append([f"{shape}, {case}", *cells])
    head = [
        "us a row",
        "in lockstep",
        "one leaves, one joins",
        "host alone: lockstep",
        "leaving and joining",
    ]
    return _below(rows.lines(head, body), found, "--run joining")


def _below(table: str, found: Sequence[Row], command: str, *said: str) -> str:
    origin = rows.origin(*found, command=f"python -m benchmarks.run {command}")
    return f"{table}\n\n{rows.prose(*said, origin)}"
