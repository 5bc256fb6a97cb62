"""How far from an image its latent leads back, from the rows of benchmarks.runs.encoding."""

from __future__ import annotations

from diffusion_engine import SOLVERS
from diffusion_engine.solvers.base import orders

from ... import results
from .. import rows


def encoding() -> str:
    """The round trips, a line for each solver and refinement."""
    found = rows.committed(results.ENCODING)
    cases = [case for case, _ in rows.grouped(found, "data", "steps")]
    head = ["solver", "order", "refine", "calls", *(f"{data}, N = {n}" for data, n in cases)]
    body = []
    for (solver, refine), same in rows.grouped(found, "solver", "refine"):
        errors = [rows.one(same, data=data, steps=n)["error"] for data, n in cases]
        about = [f"`{solver}`", orders(SOLVERS[solver]()), refine, _calls(solver, int(refine))]
        body.append([*about, *(f"{float(error):.1e}" for error in errors)])
    origin = rows.prose(rows.origin(*found, command="python -m benchmarks.runs.encoding"))
    return f"{rows.lines(head, body, 2)}\n\n{origin}"


def _calls(solver: str, refine: int) -> str:
    """Those of encoding with N steps."""
    each = refine or SOLVERS[solver]().calls
    written = "N" if each == 1 else f"{each} N"
    return f"1 + {written}" if refine else written
