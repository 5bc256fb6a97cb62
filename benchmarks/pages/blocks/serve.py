"""An engine under load, from the rows of benchmarks.runs.serve."""

from __future__ import annotations

from ... import results
from .. import rows
from ..rows import Row

CONTENDERS = ("engine", "static", "one at a time", "lockstep")
MIXES = {
    "short": "most requests short, one in sixteen of 50 steps",
    "even": "5 to 50 steps, all as often",
}


def serve() -> str:
    return _served("eager")


def serve_native() -> str:
    return _served("native")


def _served(executor: str) -> str:
    """Throughput of each contender in its best setting, latencies under load, and the engine's own time."""
    every = rows.committed(results.SERVE)
    found = rows.some(every, executor=executor)
    calls = [min(_us(r) for r in rows.some(found, contender=f"network of {n}")) for n in (1, 16)]
    ceiling = 16 * calls[0] / calls[1]
    own = _us(rows.one(every, contender="own"))
    said = (
        f"Ratios are the engine's over the contender's. Batching gains at most {rows.times(ceiling)} on this "
        "network: the time of an image's row at batch 1 over that at batch 16.",
        f"Seats empty when the last requests end. Seat for seat the engine has {seat_for_seat(found)} of "
        "lockstep's rate, whose seats are always full.",
        f"The engine's own time, outside network and step, is {own:.0f} us a row when one request leaves and "
        "another joins in every row of 16 seats.",
    )
    origin = rows.origin(*found, command="python -m benchmarks.runs.serve")
    return f"{_speeds(found)}\n\n{_latencies(found)}\n\n{rows.prose(*said, origin)}"


def _speeds(found: list[Row]) -> str:
    body = []
    for mix, about in MIXES.items():
        ours = float(best(found, mix, "engine")["images_s"])
        for contender in CONTENDERS:
            row = best(found, mix, contender)
            theirs = float(row["images_s"])
            setting = f"{row['threads']}, {row['waiting']}"
            ratio = "" if contender == "engine" else rows.times(ours / theirs)
            taken = rows.percent(float(row["occupancy"])) if row["occupancy"] else ""
            body.append(
                [
                    about if contender == "engine" else "",
                    contender,
                    setting,
                    rows.number(theirs),
                    taken,
                    ratio,
                ]
            )
    head = [
        "requests, all at once",
        "contender",
        "threads, waiting",
        "images/s",
        "seats taken",
        "the engine has",
    ]
    return rows.lines(head, body, 3)


def _latencies(found: list[Row]) -> str:
    body = []
    for mix in MIXES:
        for contender in CONTENDERS[:-1]:
            (row, *_) = [
                r for r in rows.some(found, mix=mix, contender=contender) if r["load"] != "all"
            ]
            times = [
                f"{rows.number(float(row[f'{what}_p{q}_ms']))} ms"
                for what in ("preview", "latency")
                for q in (50, 99)
            ]
            body.append([mix, f"{rows.percent(float(row['load']))}", contender, *times])
    head = ["mix", "load", "contender", "first preview p50", "p99", "latency p50", "p99"]
    return rows.lines(head, body, 3)


def seat_for_seat(found: list[Row]) -> str:
    """The engine's rate over lockstep's, of the seats that were taken, mix by mix."""
    made = []
    for mix in MIXES:
        ours, full = best(found, mix, "engine"), best(found, mix, "lockstep")
        ratio = float(ours["images_s"]) / float(full["images_s"]) / float(ours["occupancy"])
        made.append(rows.percent(ratio))
    return " and ".join(made)


def best(found: list[Row], mix: str, contender: str) -> Row:
    """The row of a contender's best setting."""
    own = rows.some(found, mix=mix, contender=contender, load="all")
    return max(own, key=lambda row: float(row["images_s"]))


def _us(row: Row) -> float:
    return float(row["us_row"])
