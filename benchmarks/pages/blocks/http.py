"""Requests over HTTP beside the same ones in a process, from the rows of benchmarks.runs.http."""

from __future__ import annotations

from ... import results
from .. import rows
from ..rows import Row

COMMAND = "python -m benchmarks.runs.http"
OWN = "in process"


def http() -> str:
    """What a server adds to a request, and what it keeps of the engine's images a second."""
    found = rows.committed(results.HTTP)
    body = []
    for (executor, part, steps), same in rows.grouped(found, "executor", "part", "steps"):
        whole = part == "one at a time"
        own = _best(rows.some(same, contender=OWN), whole)
        for (contender,), each in rows.grouped(same, "contender"):
            if contender == OWN:
                continue
            if whole:  # of the setting that suits the engine best
                row = rows.one(each, threads=own["threads"], waiting=own["waiting"])
                told = [f"{float(r['p50_ms']):.2f} ms" for r in (own, row)]
                apart = f"{float(row['over_ms']):+.2f} ms"
            else:
                row = _best(each, whole)
                told = [f"{float(r['images_s']):.1f} /s" for r in (own, row)]
                apart = rows.times(float(row["images_s"]) / float(own["images_s"]))
            body.append(
                [f"{executor}, {part}, {steps} step{'s' * (steps != '1')}", contender, *told, apart]
            )
    text = rows.lines(["digits", "over HTTP", "in process", "HTTP", "apart"], body, 2)
    said = (
        "One at a time: the median time of a request, at the threads and the way of waiting that suit the",
        "engine best. 64 at a time: images a second, the best of 1 and 2 threads that wait passively or",
        "actively, of each. Client and server share the cores.",
    )
    return f"{text}\n\n{rows.prose(*said, rows.origin(*found, command=COMMAND))}"


def _best(found: list[Row], whole: bool) -> Row:
    if whole:
        return min(found, key=lambda row: float(row["p50_ms"]))
    return max(found, key=lambda row: float(row["images_s"]))
