"""A run of comparisons, of which some may fail."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable

from .results import Comparison, Row


def compare_all(cases: Iterable[Comparison], keep: Callable[[list[Row]], None]) -> list[str]:
    """Keeps the rows of each case as they come, and returns why the others have none."""
    failed = []
    for compare in cases:
        try:
            keep(compare())
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")
            traceback.print_exc()
    return failed


def finish(failed: list[str]) -> None:
    """Ends the program with the failures, if there are any."""
    if failed:
        sys.exit("\n".join([f"{len(failed)} comparisons failed:", *failed]))
