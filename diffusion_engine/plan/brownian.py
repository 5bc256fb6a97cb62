"""A sample's Brownian path, the same for any number of steps: intervals as weights of a tree's normals.

An SDE solver's noise over a step is an increment of one path W. The path lies in a binary tree over
lam in [-RANGE, RANGE], halved DEPTH times; its clock is v = e^(2 lam), the signal-to-noise ratio:
there the noise that solvers of the reverse SDE with eta = 1 (DDPM, ancestral, DPM-Solver++ SDE) add
to alpha x / sigma^2 is Brownian exactly, so that two half steps add what the whole one does. With
other eta, runs of more and more steps still come to one sample.

A node of width d has the normalised increment N = (W(b) - W(a)) / sqrt(v(b) - v(a)), its halves

    N_left = sqrt(l) N + sqrt(r) z,   N_right = sqrt(r) N - sqrt(l) z,   l = 1 / (e^d + 1),  r = 1 - l

(Levy's midpoint displacement), z being the node's own normal. Any increment between ends on the
finest grid is therefore a sum of weight x normal over the nodes that hold one of its ends inside, at
most two a level. The weights are made here in float64, ops/brownian.py sums.
"""

from __future__ import annotations

import math

import numpy as np

from ..ops.layout import DEPTH, HEADER, NORMALS, TERMS
from ..ops.philox import IMAGE, PATH
from ..processes import Point
from .plan import Plan
from .row import CELLS, Span

RANGE = 16.0  # so that a cell is 2^-12 wide
ROOT = 0  # the key of the whole path's normal; node i of level n, counted from the left, is 2^n + i
NEGLIGIBLE = 2.0**-26  # a weight that changes no float32 sum of terms with squares that sum to 1


def cell(lam: float) -> int:
    """The end of the finest grid next to lam, 0 ... CELLS; clipped, infinite ones too."""
    return round(min(max((lam + RANGE) / (2.0 * RANGE), 0.0), 1.0) * CELLS)


def span(s: Point, t: Point, path: int = 0) -> Span | None:
    """The interval of a path from s to t; None where it is no cell long."""
    low, high = cell(s.lam), cell(t.lam)
    return (path, low, high) if low < high else None


def weights(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys and weights, [n, TERMS], of the normalised increments from cells `low` to `high`, [n].

    Weight of a node: sqrt(l r v(node) / v(increment)) (f_left - f_right), f being the shares of the
    halves that the increment covers; of the root: sqrt(v(increment) / v(root)).
    """
    root = np.sqrt(_share(low, high, np.zeros_like(low), np.full_like(low, CELLS)))
    keys, made = [np.full_like(low, ROOT)], [root]
    for level in range(DEPTH):
        width = CELLS >> level
        nodes = [low // width, np.minimum(high, CELLS - 1) // width][: 1 + (level > 0)]
        for i, node in enumerate(nodes):
            a, half = node * width, width // 2
            left = _share(low, high, a, a + half)
            right = _share(low, high, a + half, a + width)
            d = width * 2.0 * RANGE / CELLS
            spread = 0.5 / math.cosh(0.5 * d)  # sqrt(l r)
            size = spread * np.sqrt(_measure(a, a + width, low) / _measure(low, high, low))
            weight = size * (left - right)
            keys.append((1 << level) + node)
            made.append(np.where((i == 1) & (node == nodes[0]), 0.0, weight))
    return np.stack(keys, axis=1), np.stack(made, axis=1)


def _measure(a: np.ndarray, b: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """v(b) - v(a), over v(origin)."""
    unit = 4.0 * RANGE / CELLS
    return np.exp(unit * (a - origin)) * np.expm1(unit * (b - a))


def _share(low: np.ndarray, high: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The share of [a, b] that [low, high] covers, by v."""
    first, last = np.clip(low, a, b), np.clip(high, a, b)
    return _measure(first, last, a) / _measure(a, b, a)


def pack(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a plan as the op reads them: terms [R, NORMALS + 1, HEADER + TERMS] int32 and
    weight [R, NORMALS + 1, TERMS] float32, kept with the plan. They are not to be written."""
    if "paths" not in plan.packed:
        shape = (len(plan.rows), NORMALS + 1)
        terms = np.zeros((*shape, HEADER + TERMS), np.int32)
        weight = np.zeros((*shape, TERMS), np.float32)
        found: list[tuple[int, int, Span]] = []
        for i, row in enumerate(plan.rows):
            for m in (m for m in range(NORMALS + 1) if plan.draws[i] >> m & 1):
                if m < len(row.spans) and (taken := row.spans[m]) is not None:
                    found.append((i, m, taken))
                else:  # a normal of the row's own
                    terms[i, m, : HEADER + 1] = 1, m, np.uint32(row.key).astype(np.int32)
                    weight[i, m, 0] = 1.0
        if found:
            rows, draw = np.array([(i, m) for i, m, _ in found]).T
            path, low, high = np.array([taken for *_, taken in found]).T
            keys, values = weights(low, high)
            keys |= plan.rows[0].key & IMAGE  # the image may have been made of the same seed's path
            _fill(terms, weight, (rows, draw), path, keys, values)
        plan.packed["paths"] = terms, weight
    return plan.packed["paths"]


def _fill(
    terms: np.ndarray, weight: np.ndarray, at: tuple[np.ndarray, np.ndarray], path: np.ndarray,
    keys: np.ndarray, values: np.ndarray,
) -> None:  # fmt: skip
    """Writes increments with their negligible terms left out."""
    kept = np.abs(values) > NEGLIGIBLE
    first = np.argsort(~kept, axis=1, kind="stable")  # what is kept, in the order of the tree
    counts = kept.sum(axis=1)
    made = np.zeros((len(counts), terms.shape[2]), np.int32)
    made[:, 0], made[:, 1] = counts, PATH + path
    used = np.arange(keys.shape[1]) < counts[:, None]
    made[:, HEADER:] = np.where(used, np.take_along_axis(keys, first, 1), 0)
    terms[at] = made
    weight[at] = np.where(used, np.take_along_axis(values, first, 1), 0.0)


def objection(plan: Plan) -> str | None:
    """Why a plan follows no path although it draws noise, as a sentence: that of a solver that renews the
    noise in place of following an SDE, or of a state [x, v]. None where it does, or draws none."""
    fresh = any(row.draws(m) for row in plan.rows[1:] for m in range(NORMALS))
    if fresh and not any(any(row.spans) for row in plan.rows):
        return (
            f"noise='brownian': {plan.name!r} draws noise that its rows give no interval of a path (spans), "
            "so nothing would change; leave noise out, or use a solver such as 'dpmpp_2m_sde'"
        )
    return None
