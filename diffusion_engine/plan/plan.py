"""A plan: the table of numbers that a sampler is. Host only, float64, no tensors.

Row 0 makes the first state (the prior draw, or a given x); every other row is one network call (few
have none) and one affine update of the slots (ops/step.py has the formula). Rows follow one another.
"""

from __future__ import annotations

import json
import math
import operator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..ops import layout
from .linear import said
from .row import CELLS, Row, from_dict, to_dict

FORMAT = "diffusion-engine-plan/2"
FIRST = "diffusion-engine-plan/1"  # which says "blocks" where /2 says "channel_blocks"
EPSILON = 2.0**-52


@dataclass(frozen=True)
class Plan:
    """Rows, checked as mathematics when the plan is made.

    rows   the table; rows[0] has no call, the last has one
    name   of the solver, for display
    exact  whether a perfect network is transported exactly: then, if every `denoised` were the true
           x0, slot 0 would keep alpha x0 + noise at each row's state, and that is verified

    Raises ValueError where a row is malformed, reads a slot that nothing wrote, holds a number that
    is not finite, or breaks the transport of x0.
    """

    rows: tuple[Row, ...]
    name: str = "plan"
    exact: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        if len(self.rows) < 2:
            raise ValueError(
                f"a plan has a first row and at least one call, got {len(self.rows)} rows"
            )
        if self.rows[-1].call is None:
            raise ValueError(f"row {len(self.rows) - 1}: the last row has a network call")
        written: set[int] = set()
        for i, row in enumerate(self.rows):
            _check_row(i, row, written)
        if self.exact:
            _check_transport(self.rows)

    def __reduce__(self) -> tuple:
        return type(self), (self.rows, self.name, self.exact)

    @cached_property
    def packed(self) -> dict[Any, Any]:
        """By dtype, what table.packed made of the plan; by name, what others did."""
        return {}

    @cached_property
    def slots(self) -> int:
        """How many slots the plan uses."""
        return 1 + max(k for row in self.rows for k in row.new)

    @cached_property
    def outputs(self) -> int:
        """The most outputs any row reads."""
        return max(len(row.q) for row in self.rows)

    @cached_property
    def begins(self) -> int:
        """How many slots the first row reads: those of a given x; 0 where it draws the state."""
        read = (int(s[1:]) for u in self.rows[0].new.values() for s, w in u if s[0] == "S" and w)
        return 1 + max(read, default=-1)

    @cached_property
    def normals(self) -> int:
        """How many normals an element may need in one row."""
        return max(
            (m + 1 for m in range(layout.NORMALS) for r in self.rows if r.draws(m)), default=0
        )

    @cached_property
    def inputs(self) -> int:
        """How many slots the network reads."""
        return max(len(row.call.read) for row in self.rows if row.call)

    @cached_property
    def entries(self) -> int:
        """The most entries of the network's batch that a call of one sample takes."""
        return max(len(row.entries) for row in self.rows)

    @cached_property
    def branches(self) -> tuple[tuple[int, ...], ...]:
        """Of every row."""
        return tuple(row.branches for row in self.rows)

    @cached_property
    def draws(self) -> tuple[int, ...]:
        """Of every row the normals it uses: bit m; bit NORMALS is the known region's."""
        every = range(layout.NORMALS)
        own = (sum(1 << m for m in every if row.draws(m)) for row in self.rows)
        known = (bool(row.known and row.known[1]) << layout.NORMALS for row in self.rows)
        return tuple(map(operator.or_, own, known))

    @cached_property
    def last_branch(self) -> int:
        """The highest branch that a row calls."""
        return max((branch for row in self.rows for branch in row.branches), default=0)

    @cached_property
    def masked(self) -> bool:
        """Whether any row keeps a known region."""
        return any(row.known is not None for row in self.rows)

    @cached_property
    def learned(self) -> bool:
        """Whether any row scales its normals by a learned variance."""
        return any(row.learned for row in self.rows)

    @cached_property
    def guiders(self) -> frozenset[str]:
        """The names of what guides its rows by numbers of each sample."""
        return frozenset(row.guider[0] for row in self.rows if row.guider)

    @cached_property
    def nfe(self) -> int:
        """Number of rows with a network call."""
        return sum(row.call is not None for row in self.rows)

    @cached_property
    def evaluations(self) -> int:
        """Network evaluations a sample costs: every branch of every call."""
        return sum(len(row.entries) for row in self.rows)

    def replace_rows(self, rows: list[Row]) -> Plan:
        """The same plan with other rows."""
        return replace(self, rows=tuple(rows))

    def to_json(self) -> str:
        """The plan as JSON text; numbers round trip exactly."""
        body = {"format": FORMAT, "name": self.name, "exact": self.exact}
        return json.dumps({**body, "rows": [to_dict(row) for row in self.rows]}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan of `to_json`; ValueError where the text is not one."""
        try:
            body = json.loads(text)
            if body["format"] not in (FIRST, FORMAT):
                raise ValueError(f"format {body['format']!r}")
            if body["format"] == FIRST:
                body["rows"] = [{**row, "channel_blocks": row["blocks"]} for row in body["rows"]]
            rows = tuple(from_dict(row) for row in body["rows"])
            name, exact = str(body["name"]), bool(body["exact"])
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise ValueError(
                f"this is not a saved plan ({error}); write one with to_json()"
            ) from error
        return cls(rows, name, exact)

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self.rows)} rows, {self.nfe} calls, {self.slots} slots"]
        for i, row in enumerate(self.rows):
            at = "no call" if i else "start"
            if row.call:
                at = f"t={row.call.at.t:.6g} label={row.call.label:.6g}"
                if row.call.end_label is not None:
                    at += f" end_label={row.call.end_label:.6g}"
            given = [(f"S{k}", p) for k, p in enumerate(row.p)]
            outs = [f"out{j}" for j in range(len(row.q))]
            made = said([*given, *zip(outs, row.q, strict=True)])
            if row.clip:
                made = f"clip({made}, {row.clip[0]:g}, {row.clip[1]:g})"
            if row.scale != 1.0:
                made = f"{row.scale:.6g} {made if row.clip else f'({made})'}"
            lines.append(f"{i:4d}  {at}" + (f"  D = {made}" if row.q or row.p else ""))
            if any(row.e):
                whose = ", unconditional alone" if row.unconditional else ""
                lines.append(f"        raw = {said(zip(outs, row.e, strict=True))}{whose}")
            if row.guider:
                lines.append(f"        guided by {row.guider[0]} {row.guider[1]}")
            lines += [f"        S{k} <- {update}" for k, update in row.new.items()]
        return "\n".join(lines)


def _check_row(i: int, row: Row, written: set[int]) -> None:
    if row.call is not None and i == 0:
        raise ValueError(
            "row 0: it makes the state that the first call reads, and has no call itself"
        )
    if row.call is None and (row.q or row.e or row.learned):
        raise ValueError(f"row {i} has no network call and takes outputs of one")
    if not row.new or not all(0 <= k < layout.SLOTS for k in row.new):
        raise ValueError(f"row {i} writes slots {sorted(row.new)}; it has to write some of 0 to 4")
    if len(row.p) > layout.SLOTS or len(row.q) > layout.OUTPUTS:
        raise ValueError(
            f"row {i} has {len(row.p)} slots and {len(row.q)} outputs; 5 and 16 at most"
        )
    if not len(row.q) == len(row.channel_blocks) == len(row.branches) or len(row.e) not in (
        0,
        len(row.q),
    ):
        raise ValueError(
            f"row {i}: q, channel_blocks, branches and e need one value for each output"
        )
    if row.unconditional:
        _check_unconditional(i, row)
    numbers = [*row.p, *row.q, *row.e, row.scale, *(row.known or ()), *(row.learned or ())]
    numbers += row.guider[1] if row.guider else ()
    if row.call:
        numbers += [*row.call.labels, *row.call.c_in]
        if not 1 <= len(row.call.read) <= layout.INPUTS or len(row.call.c_in) != len(row.call.read):
            raise ValueError(f"row {i}: the network reads 1 or 2 slots, each with its scale")
    if not all(span is None or _is_span(span) for span in row.spans):
        raise ValueError(
            f"row {i}: spans are (path 0 or 1, low < high <= {CELLS}), got {row.spans}"
        )
    if not all(map(math.isfinite, numbers)) or not all(u.finite for u in row.new.values()):
        raise ValueError(f"row {i} of the plan holds a number that is not finite:\n{row}")
    used = {k for k, p in enumerate(row.p) if p} | set(row.call.read if row.call else ())
    used |= {int(s[1:]) for u in row.new.values() for s, _ in u if s[0] == "S"}
    if i and not used <= written:
        raise ValueError(f"row {i} reads slots {sorted(used - written)} before any row wrote them")
    written |= set(row.new)


def _check_unconditional(i: int, row: Row) -> None:
    """One branch's output makes raw, with the weight that all together have in denoised."""
    outputs = zip(row.e, row.q, row.branches, row.channel_blocks, strict=bool(row.e))
    read = [(e, branch, block) for e, _, branch, block in outputs if e]
    weight = math.fsum(q for q, block in zip(row.q, row.channel_blocks, strict=True) if block == 0)
    if len(read) != 1 or read[0][1:] != (max(row.branches), 0):
        raise ValueError(
            f"row {i}: raw is of the branch without a condition alone, and is made of {len(read)} outputs"
        )
    if row.guider is None and not math.isclose(read[0][0], weight, rel_tol=1e-9):
        raise ValueError(
            f"row {i}: the branch without a condition has the weight {read[0][0]!r} in raw and the outputs "
            f"{weight!r} in denoised"
        )


def _is_span(span: Any) -> bool:
    if len(span) != 3 or not all(type(n) is int for n in span):
        return False
    path, low, high = span
    return path in (0, 1) and 0 <= low < high <= CELLS


def _check_transport(rows: tuple[Row, ...]) -> None:
    """Follows the coefficient of x0 in every slot, given a network that knows x0, and what rounding may
    have made of it: a multistep solver that goes up to the noise takes large differences of small terms."""
    first = rows[0].state
    if first is None:
        raise ValueError("row 0 has to leave a state in slot 0")
    carried = dict.fromkeys(range(layout.SLOTS), 0.0) | {0: first.alpha}
    error = dict.fromkeys(range(layout.SLOTS), 0.0)
    for i, row in enumerate(rows[1:], 1):
        size = 1.0
        new, rounded = {}, {}
        for k, update in row.new.items():
            parts = [w * carried[int(s[1:])] for s, w in update if s[0] == "S"] + [update["D"]]
            # raw is then denoised before the slots are added and clipped
            if row.e == row.q or row.unconditional:
                parts.append(
                    update["raw"] * (1.0 - sum(p * carried[j] for j, p in enumerate(row.p)))
                )
            new[k] = sum(parts)
            rounded[k] = EPSILON * sum(map(abs, parts)) + sum(
                abs(w) * error[int(s[1:])] for s, w in update if s[0] == "S"
            )
            size = max(size, *map(abs, parts)) if k == 0 else size
        carried |= new
        error |= rounded
        if row.state is not None and abs(carried[0] - row.state.alpha) > 1e-9 * size + error[0]:
            raise ValueError(
                f"row {i} does not transport x0: of a network that knows it, slot 0 holds {carried[0]!r} x0, "
                f"and the row's state says alpha = {row.state.alpha!r}; check the row's weights of slots and "
                f"denoised, or say exact=False, as a solver does that keeps x0 to its order alone"
            )
