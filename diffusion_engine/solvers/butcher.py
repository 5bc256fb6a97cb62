"""Butcher tables of explicit exponential Runge-Kutta methods, and how they are read from JSON.

Of y' = -y + D(y, l) a step of h from l takes, with D_j the prediction at the stage U_j (Hochbruck & Ostermann
2005)

    U_i = e^(-c_i h) y + h (sum over j < i of a_ij(h) D_j)    at l + c_i h,
    end = e^(-h) y     + h (sum over i of b_i(h) D_i),

each a_ij and b_i a sum of terms w phi_k(-c h), written [w, k, c].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from .phi import phi

STAGES, PHIS, TERMS = 5, 9, 32  # at most: as many stages as a row has slots
SAME = 1e-12  # of coefficients of order 1
Array = np.ndarray
Entry = tuple[tuple[float, int, float], ...]
FORM = (
    'a tableau is {"c": [0, ...], "a": [[], [entry], ...], "b": [entry, ...]}, an entry a list of terms '
    "[weight, k, c] for weight * phi_k(-c h)"
)


def value(entry: Entry, h: float) -> float:
    """An entry for a step of h."""
    return math.fsum(w * phi(k, -c * h) for w, k, c in entry)


def series(entry: Entry) -> Array:
    """The coefficients of an entry in powers 0 to 3 of z = -h."""
    made = np.zeros(4)
    for w, k, c in entry:
        made += [w * c**n / math.factorial(n + k) for n in range(4)]
    return made


@dataclass(frozen=True)
class Tableau:
    """A method of up to five stages.

    c  the stages' places in a step, the first 0
    a  row i has the entries of the i stages before
    b  those of the step's end
    """

    c: tuple[float, ...]
    a: tuple[tuple[Entry, ...], ...]
    b: tuple[Entry, ...]

    @property
    def order(self) -> int:
        """Of convergence, 0 to 4: the greatest p whose conditions, of order k, hold up to z^(p - k).

        The conditions are the stiff ones of Hochbruck & Ostermann 2005, each as far as it counts where steps
        shrink.
        """
        orders = [_order_of(own, residual) for own, residual in self._conditions()]
        return min(4, *orders)

    def _conditions(self) -> list[tuple[int, Array]]:
        """The order that each condition belongs to, and what it is off by as a series in z."""
        n, c = len(self.c), self.c
        b = [series(entry) for entry in self.b]
        a = [[series(entry) for entry in row] + [np.zeros(4)] * (n - len(row)) for row in self.a]

        def off(weights: Sequence[Array], k: int, at: float) -> Array:
            moment = sum(w * c[j] ** (k - 1) for j, w in enumerate(weights)) / math.factorial(k - 1)
            return at**k * series(((1.0, k, at),)) - moment

        def summed(weights: Sequence[Array], values: Sequence[Array]) -> Array:
            return sum((_times(w, v) for w, v in zip(weights, values, strict=True)), np.zeros(4))

        stage = {k: [off(a[i], k, c[i]) for i in range(n)] for k in (1, 2, 3)}
        made = [(k, off(b, k, 1.0)) for k in (1, 2, 3, 4)]
        made += [(k + 1, summed(b, stage[k])) for k in (1, 2, 3)]
        made.append((4, summed(b, [summed(row, stage[2]) for row in a])))
        return [*made, (4, summed(b, [c[i] * stage[2][i] for i in range(n)]))]

    def as_json(self) -> dict[str, Any]:
        """The form that `read` takes."""
        rows = [[[list(term) for term in entry] for entry in row] for row in (*self.a, self.b)]
        return {"c": list(self.c), "a": rows[:-1], "b": rows[-1]}


def _times(p: Array, q: Array) -> Array:
    """The product of two series, to z^3."""
    made: Array = np.convolve(p, q)[:4]
    return made


def _order_of(own: int, residual: Array) -> int:
    """The order that a condition of order `own` allows where it is off by a series."""
    nonzero = np.flatnonzero(np.abs(residual) > SAME)
    return 4 if len(nonzero) == 0 else own - 1 + int(nonzero[0])


def read(given: Any) -> Tableau:
    """A tableau of its JSON. Raises ValueError where it is none, is not explicit, a row's sum is not
    c_i phi_1(-c_i h), the last one's not phi_1(-h), or a stage lies outside the step."""
    if not isinstance(given, Mapping):
        raise ValueError(f"tableau={checks.said(given)}: {FORM}; or give a name")
    if set(given) != {"c", "a", "b"}:
        raise ValueError(f"tableau with {', '.join(map(str, given)) or 'nothing'}: {FORM}")
    c = tuple(checks.number("c", p) for p in checks.entries("c", given["c"], FORM))
    if not 1 <= len(c) <= STAGES or c[0] != 0.0 or not all(0.0 <= p <= 1.0 for p in c):
        raise ValueError(
            f"tableau with c={list(c)}: its stages, {STAGES} at most, lie between 0 and 1 of a step, the "
            "first at 0"
        )
    rows = checks.entries("a", given["a"], FORM)
    if len(rows) != len(c):
        raise ValueError(
            f"tableau with {len(c)} places c and {len(rows)} rows a: give a row for each"
        )
    a = tuple(_row(f"a[{i}]", row, i, c[i]) for i, row in enumerate(rows))
    made = Tableau(c, a, _row("b", given["b"], len(c), 1.0))
    for where, row, end in (
        *((f"a[{i}]", row, c[i]) for i, row in enumerate(a)),
        ("b", made.b, 1.0),
    ):
        _check_sum(where, row, end)
    return made


def _row(where: str, given: Any, length: int, c: float) -> tuple[Entry, ...]:
    """A row's entries. It may leave out its last ones."""
    row = checks.entries(where, given, FORM)
    if len(row) > length:
        raise ValueError(
            f"{where} of a tableau has {len(row)} entries, and {length} stages are before it: only "
            "explicit methods run, each of whose stages is made of those before"
        )
    made = tuple(_entry(f"{where}[{j}]", entry, c) for j, entry in enumerate(row))
    return made + ((),) * (length - len(made))


def _entry(where: str, given: Any, c: float) -> Entry:
    terms = [] if given == 0 else checks.entries(where, given, FORM)
    if len(terms) > TERMS:
        raise ValueError(f"{where} of a tableau has {len(terms)} terms, {TERMS} is the most")
    return tuple(_term(where, term, c) for term in terms)


def _term(where: str, given: Any, c: float) -> tuple[float, int, float]:
    """[weight, k] or [weight, k, c], c being the row's own where it is left out."""
    parts = checks.entries(where, given, FORM)
    if len(parts) not in (2, 3):
        raise ValueError(f"{where} of a tableau has the term {checks.said(given)}: {FORM}")
    weight, at = checks.number(where, parts[0]), checks.number(where, ([*parts, c])[2])
    k = checks.whole(where, parts[1], 0, f"k of phi_k is a whole number, 0 to {PHIS}")
    if k > PHIS or not 0.0 <= at <= 1.0:
        raise ValueError(
            f"{where} of a tableau has the term {checks.said(given)}: k is 0 to {PHIS}, c between 0 and 1"
        )
    return weight, k, at


def _check_sum(where: str, row: Sequence[Entry], end: float) -> None:
    """A row that sums to another number takes a constant D elsewhere."""
    for h in (0.0, 0.5, 4.0, 40.0):
        total, due = math.fsum(value(entry, h) for entry in row), end * phi(1, -end * h)
        size = math.fsum(abs(w) for entry in row for w, _, _ in entry)
        if not abs(total - due) <= SAME * max(1.0, size):
            raise ValueError(
                f"row {where} of a tableau sums to {total:g} at h={h:g} where {end:g} phi_1({-end * h:g}) = "
                f"{due:g} is due: with the sums of the rows right, an x0 that does not change is kept"
            )
