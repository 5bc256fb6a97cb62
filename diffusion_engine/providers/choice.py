"""`Choice`: what was measured of a network's executors, and which was kept; `print` shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from ..choices.turns import EQUAL


@dataclass(frozen=True)
class Tried:
    """An executor that was tried.

    executor  its name
    dtype     in which it computes the network
    ms        of a row of a batch: the call and its step; None where it made none
    error     of the call's outputs, of the largest of the module's; None of the module itself
    threads   of the CPU that its calls ran on; None where nothing says so
    reason    why it cannot be taken, whatever its time; None where it can
    """

    executor: str
    dtype: str
    ms: float | None = None
    error: float | None = None
    threads: int | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        return self.executor if self.dtype == "float32" else f"{self.executor} in {self.dtype}"


@dataclass(frozen=True)
class Choice:
    """Which executor runs a network, and what was measured of all.

    network  its name
    entries  of the calls that were timed
    tried    the simplest first: where times are nearly the same the first is kept
    seconds  that trying all took
    read     whether it was found on disk, where another process had kept it
    """

    network: str
    entries: int
    tried: tuple[Tried, ...]
    seconds: float
    read: bool = False

    @property
    def kept(self) -> Tried:
        """The fastest; of those whose times are nearly the same the one that needs least. Where none was
        timed, the first that was not refused."""
        best = min((one.ms for one in self._fit if one.ms is not None), default=0.0)
        near = (one for one in self._fit if one.ms is not None and one.ms <= EQUAL * best)
        return next(near, self._fit[0])

    @property
    def fits(self) -> bool:
        """Whether any may be taken."""
        return bool(self._fit)

    @property
    def _fit(self) -> list[Tried]:
        return [one for one in self.tried if one.reason is None]

    def stands(self, among: Sequence[tuple[str, bool]]) -> bool:
        """Whether the one that was kept is here, among the same others.

        among  the name of each, and whether it is here
        """
        here = among[self.tried.index(self.kept)][1] if len(among) == len(self.tried) else False
        return here and [one.executor for one in self.tried] == [name for name, _ in among]

    def without(self, refused: Tried, reason: str) -> Choice:
        """The choice among the others."""
        left = (replace(one, reason=reason) if one is refused else one for one in self.tried)
        return replace(self, tried=tuple(left))

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"seconds": self.seconds, "tried": [asdict(one) for one in self.tried]}

    @classmethod
    def of(cls, record: Any, network: str, entries: int) -> Self | None:
        """That of a record; None where it is none."""
        try:
            tried = tuple(Tried(**one) for one in record["tried"])
            made = cls(network, entries, tried, float(record["seconds"]), read=True)
            return made if all(map(_is_tried, tried)) and made.fits else None
        except (TypeError, KeyError, ValueError):
            return None

    def __str__(self) -> str:
        found = ", found on disk" if self.read else ""
        kept = self.kept
        head = (
            f"{self.network}, calls of {self.entries} {'entry' if self.entries == 1 else 'entries'}, "
            f"measured in {self.seconds:.1f} s{found}"
        )
        titles = ("", "executor", "dtype", "threads", "ms a row", "error", "")
        rows = [titles, *(_cells(one, one is kept) for one in self.tried)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(titles) - 1)]
        lines = ("  ".join(map(str.ljust, row, [*widths, 0])).rstrip() for row in rows)
        return "\n".join([head, *lines, self._why()])

    def _why(self) -> str:
        """Which was kept, in a line."""
        kept = self.kept
        others = [(one.ms, one.name) for one in self._fit if one.ms is not None and one is not kept]
        if kept.ms is None or not others:
            return f"{kept.name}: nothing else runs this network here"
        ms, name = min(others)
        said = f"{kept.name}: {_ms(kept.ms)} ms a row"
        if ms <= EQUAL * kept.ms:
            return f"{said}, as fast as {name} and the simpler of the two"
        return f"{said}, {ms / kept.ms:.1f}x faster than the next ({name})"


def _is_tried(one: Any) -> bool:
    texts = type(one.executor) is str and type(one.dtype) is str
    numbers = all(type(n) in (float, int, type(None)) for n in (one.ms, one.error, one.threads))
    return texts and numbers and type(one.reason) in (str, type(None))


def _cells(one: Tried, kept: bool) -> tuple[str, ...]:
    return (
        "*" if kept else "",
        one.executor,
        one.dtype,
        "" if one.threads is None else str(one.threads),
        "" if one.ms is None else _ms(one.ms),
        "" if one.error is None else f"{one.error:.1e}",
        one.reason or "",
    )


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
