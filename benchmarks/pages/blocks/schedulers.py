"""diffusers' schedulers beside `like`, from the rows of tests/adapters/record_schedulers.py."""

from __future__ import annotations

from ... import results
from .. import rows
from ..rows import Row

OUTCOMES = {
    "equal": "equal", "rounding": "in float64", "differs": "differ", "refused": "refused", "theirs": "none",
}  # fmt: skip
OTHER = '"published": false'


def schedulers() -> str:
    """A line a class: how many configurations become what."""
    found = [row for row in rows.committed(results.SCHEDULERS) if OTHER not in row["asked"]]
    body = []
    for (name,), same in rows.grouped(found, "scheduler"):
        counts = [sum(row["outcome"] == outcome for row in same) for outcome in OUTCOMES]
        equal = [float(row["difference"]) for row in same if row["outcome"] == "equal"]
        largest = f"{max(equal):.0e}" if equal else ""
        body.append([f"`{name}`", *(str(n) if n else "" for n in counts), largest])
    total = [sum(row["outcome"] == outcome for row in found) for outcome in OUTCOMES]
    table = rows.lines(["scheduler", *OUTCOMES.values(), "largest difference"], body)
    said = (
        f"Of {len(found)} configurations {total[0]} are equal, {total[1]} in float64, {total[2]} differ and "
        f"{total[3]} are refused here; of {total[4]} diffusers has no result either.",
    )
    return f"{rows.prose(*said)}\n\n{table}"


def schedulers_both() -> str:
    """Where diffusers is not the formula, and both are offered."""
    found = [row for row in rows.committed(results.SCHEDULERS) if OTHER in row["asked"]]
    return _reasons(found, "apart by")


def schedulers_differ() -> str:
    """Where only one is offered."""
    found = rows.some(rows.committed(results.SCHEDULERS), outcome="differs")
    return _reasons([row for row in found if OTHER not in row["asked"]], "differ by")


def _reasons(found: list[Row], head: str) -> str:
    body = []
    for (said,), same in rows.grouped(found, "said"):
        names = ", ".join(dict.fromkeys(_short(row) for row in same))
        off = [float(row["difference"]) for row in same if row["difference"]]
        spread = f"{min(off):.0e} to {max(off):.0e}" if off else "no number of theirs"
        body.append([names, said or "-", str(len(same)), spread])
    return rows.lines(["scheduler", "why", "configurations", head], body, 2)


def schedulers_refused() -> str:
    """Why configurations are refused here."""
    found = rows.some(rows.committed(results.SCHEDULERS), outcome="refused")
    body = []
    for (said,), same in rows.grouped(found, "said"):
        names = ", ".join(dict.fromkeys(_short(row) for row in same))
        body.append([names, said.replace("|", "\\|"), str(len(same))])
    return rows.lines(["scheduler", "refused with", "configurations"], body, 2)


def _short(row: Row) -> str:
    return row["scheduler"].removesuffix("Scheduler")
