"""What a load came to with each contender, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .drive import Course

QUANTILES = (50, 95, 99)
HEAD = (
    "", "at once: images/s", "as it comes: images/s", "latency p50", "p95", "p99",
    "first preview p50", "p95", "p99", "seats taken", "not done",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A contender.

    at_once    images a second where all requests come at the beginning
    images_s   images a second as the requests come
    latency    seconds from a request to its last sample: p50, p95, p99
    preview    seconds from a request to its first preview, the same
    occupancy  seats taken over all, mean of the rows
    lost       requests that were refused, or missed their deadline
    course     of the load as it came
    """

    name: str
    at_once: float
    images_s: float | None = None
    latency: tuple[float, ...] = ()
    preview: tuple[float, ...] = ()
    occupancy: float | None = None
    lost: int = 0
    course: Course | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Report:
    """The contenders, and of what they are: requests, images, the network's evaluations of all, seats."""

    lines: tuple[Line, ...]
    requests: int
    images: int
    evaluations: int
    capacity: int

    def of(self, name: str) -> Line:
        return next(line for line in self.lines if line.name == name)

    def rows(self) -> list[dict[str, Any]]:
        """A mapping a contender, without its course."""
        kept = [field.name for field in dataclasses.fields(Line) if field.name != "course"]
        return [{name: getattr(line, name) for name in kept} for line in self.lines]

    def to_json(self) -> str:
        about = {k: getattr(self, k) for k in ("requests", "images", "evaluations", "capacity")}
        return json.dumps(about | {"contenders": self.rows()}, indent=1)

    def __str__(self) -> str:
        body = [HEAD, *map(_cells, self.lines)]
        widths = [max(len(row[i]) for row in body) for i in range(len(HEAD))]
        table = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in body
        ]
        what = (
            f"{self.requests} requests, {self.images} images, {self.evaluations} evaluations of the network, "
            f"{self.capacity} seats"
        )
        return "\n".join([what, "", *table])


def line(name: str, at_once: float, course: Course) -> Line:
    """The line of a contender whose course this is."""
    done = [t for t in course.timings if t.done is not None]
    return Line(
        name,
        at_once,
        course.images / course.seconds if done else 0.0,
        _quantiles([t.done - t.came for t in done if t.done is not None]),
        _quantiles([t.preview - t.came for t in done if t.preview is not None]),
        course.occupancy,
        len(course.timings) - len(done),
        course,
    )


def _quantiles(seconds: list[float]) -> tuple[float, ...]:
    return tuple(float(q) for q in np.percentile(seconds, QUANTILES)) if seconds else ()


def _cells(line: Line) -> tuple[str, ...]:
    def times(of: tuple[float, ...]) -> list[str]:
        return [f"{1e3 * value:.0f} ms" for value in of] or [""] * len(QUANTILES)

    rate = "" if line.images_s is None else f"{line.images_s:.1f}"
    taken = "" if line.occupancy is None else f"{100 * line.occupancy:.0f} %"
    lost = "" if line.images_s is None else str(line.lost)
    return (
        line.name, f"{line.at_once:.1f}", rate, *times(line.latency), *times(line.preview), taken, lost
    )  # fmt: skip
