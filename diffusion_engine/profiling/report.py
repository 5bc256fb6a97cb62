"""`Profile`: the parts of a run's time, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NETWORK, GAPS = "network", "host gaps"


@dataclass(frozen=True)
class Part:
    """A part of one run.

    name     network, step, noise and decode where there are any, host gaps; or a class of the network's
             operators
    within   "network" for such a class, else None
    calls    operators or ranges a run that began in it; on a GPU kernels; None for gaps
    seconds  of one run
    """

    name: str
    within: str | None
    calls: float | None
    seconds: float


@dataclass(frozen=True)
class Op:
    """What one operator (on a GPU: one kernel) took in one run, without the operators it called.

    name     as torch.profiler calls it
    kind     its class, a Part within the network
    calls    in one run
    seconds  in one run
    """

    name: str
    kind: str
    calls: int
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Where the time of a sampler goes.

    seconds          of one run: the median by the clock, nothing else running
    spread           the 20th and 80th percentile
    runs             how many were timed
    samples          of a run
    batch_size       samples of a batch
    rows             rows a run, over all its batches; row 0 has no network call
    parts            what adds up to `seconds`; the classes add up to their network
    ops              largest first
    machine          what it ran on
    versions         of torch and the like
    how              where and how the sampler ran
    recipe           of the sampler
    kernels_per_row  on a GPU
    host_us_per_row  on a GPU: microseconds the host takes to issue a row
    """

    seconds: float
    spread: tuple[float, float]
    runs: int
    samples: int
    batch_size: int
    rows: int
    parts: tuple[Part, ...]
    ops: tuple[Op, ...]
    machine: dict[str, Any]
    versions: dict[str, str]
    how: dict[str, Any]
    recipe: dict[str, Any]
    kernels_per_row: float | None = None
    host_us_per_row: float | None = None

    def part(self, name: str) -> Part:
        """The part or class of this name."""
        return next(part for part in self.parts if part.name == name)

    def to_json(self) -> str:
        """Everything, with calls, microseconds and share of each part for a row."""
        about = {"format": "diffusion-engine-profile/1"} | dataclasses.asdict(self)
        parts = zip(about["parts"], self.parts, strict=True)
        about["parts"] = [shown | self._per_row(part) for shown, part in parts]
        return json.dumps(about, indent=1)

    def _per_row(self, part: Part) -> dict[str, float | None]:
        return {
            "calls_per_row": None if part.calls is None else part.calls / self.rows,
            "us_per_row": part.seconds / self.rows * 1e6,
            "share": part.seconds / self.seconds,
        }

    def __str__(self) -> str:
        low, high = self.spread
        where = (self.machine["name"], self.machine["device"], f"{self.machine['threads']} threads")
        how = (self.how["executor"], *(name for name, on in self.how.items() if on is True))
        lines = [
            f"{self.recipe['network']}, {self.recipe['solver']['name']}: {self.rows} rows of "
            f"{self.samples} samples, at most {self.batch_size} a batch",
            ", ".join((*where, *how)),
            f"{self.seconds:.4g} s a run ({low:.4g} to {high:.4g}, {self.runs} runs), "
            f"{self.samples / self.seconds:.4g} samples/s",
        ]
        if self.kernels_per_row is not None:
            lines.append(f"{self.kernels_per_row:.1f} kernels a row")
        if self.host_us_per_row is not None:
            lines.append(f"{self.host_us_per_row:.1f} us of the host a row")
        return "\n".join([*lines, "", *self._table()])

    def _table(self) -> list[str]:
        lines = [("part", "calls/row", "us/row", "share")]
        for part in (*self.parts, Part("total", None, None, self.seconds)):
            row = self._per_row(part)
            calls = "" if row["calls_per_row"] is None else f"{row['calls_per_row']:.2f}"
            name = "  " + part.name if part.within else part.name
            lines.append((name, calls, f"{row['us_per_row']:.1f}", f"{row['share']:.1%}"))
        return _aligned(lines)


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns, the first to the left and numbers to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
