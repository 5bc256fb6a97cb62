"""Butcher tables of exponential Runge-Kutta methods by name, in the JSON form of butcher.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import checks
from .butcher import FORM, Tableau, read


def res_2s(c2: float = 0.5) -> dict[str, Any]:
    """Two stages of order 2, the second at c2 (Hochbruck & Ostermann 2005, section 5; Zhang et al. 2023)."""
    return {"c": [0, c2], "a": [[], [[[c2, 1]]]], "b": [[[1, 1], [-1 / c2, 2]], [[1 / c2, 2]]]}


def res_3s(c2: float = 0.5, c3: float = 1.0) -> dict[str, Any]:
    """Three stages of order 3, at c2 and c3 (Hochbruck & Ostermann 2005, section 5; Zhang et al. 2023)."""
    gamma = (3.0 * c3**2 - 2.0 * c3) / (c2 * (2.0 - 3.0 * c2))
    second, third = (gamma * c2, 2, c2), (c3**2 / c2, 2, c3)
    taken = 1.0 / (gamma * c2 + c3)
    third_row = [[[c3, 1], *_minus(second, third)], [second, third]]
    b = [[[1, 1], [-taken * (1.0 + gamma), 2]], [[taken * gamma, 2]], [[taken, 2]]]
    return {"c": [0, c2, c3], "a": [[], [[[c2, 1]]], third_row], "b": b}


def _minus(*terms: Sequence[float]) -> list[list[float]]:
    return [[-w, *rest] for w, *rest in terms]


HALF = [[0.5, 1]]
FIRST, INNER, LAST = [[1, 1], [-3, 2], [4, 3]], [[2, 2], [-4, 3]], [[-1, 2], [4, 3]]
STAGE_5: list[list[float]] = [
    [0.5, 2, 0.5],
    [0.25, 2, 1],
    [-0.5, 3, 0.5],
    [-1, 3, 1],
]  # a52 of 'hochbruck_ostermann'
A54 = [[0.25, 2, 0.5], *_minus(*STAGE_5)]
NAMED: dict[str, Any] = {
    "res_2s": res_2s,
    "res_3s": res_3s,
    # Heun's, of order 2
    "exp_heun": lambda: res_2s(1.0),
    # Cox & Matthews 2002, of orders 3 and 4
    "etdrk3": lambda: {
        "c": [0, 0.5, 1],
        "a": [[], [HALF], [[[-1, 1]], [[2, 1]]]],
        "b": [FIRST, [[4, 2], [-8, 3]], LAST],
    },
    "etdrk4": lambda: {
        "c": [0, 0.5, 0.5, 1],
        "a": [[], [HALF], [0, HALF], [[[1, 1], [-1, 1, 0.5]], 0, [[1, 1, 0.5]]]],
        "b": [FIRST, INNER, INNER, LAST],
    },
    # Krogstad 2005, of order 4
    "krogstad": lambda: {
        "c": [0, 0.5, 0.5, 1],
        "a": [[], [HALF], [[[0.5, 1], [-1, 2]], [[1, 2]]], [[[1, 1], [-2, 2]], 0, [[2, 2]]]],
        "b": [FIRST, INNER, INNER, LAST],
    },
    # Strehmel & Weiner 1992, of order 4
    "strehmel_weiner": lambda: {
        "c": [0, 0.5, 0.5, 1],
        "a": [
            [], [HALF], [[[0.5, 1], [-0.5, 2]], [[0.5, 2]]], [[[1, 1], [-2, 2]], [[-2, 2]], [[4, 2]]],
        ],
        "b": [FIRST, 0, [[4, 2], [-8, 3]], LAST],
    },
    # Hochbruck & Ostermann 2005, of order 4 for stiff equations too
    "hochbruck_ostermann": lambda: {
        "c": [0, 0.5, 0.5, 1, 0.5],
        "a": [
            [], [HALF], [[[0.5, 1], [-1, 2]], [[1, 2]]], [[[1, 1], [-2, 2]], [[1, 2]], [[1, 2]]],
            [[[0.5, 1], *_minus(*STAGE_5, *STAGE_5, *A54)], STAGE_5, STAGE_5, A54],
        ],
        "b": [FIRST, 0, 0, LAST, [[4, 2], [-8, 3]]],
    },
}  # fmt: skip
FAMILIES = {"res_2s": 1, "res_3s": 2}


def named(name: str, nodes: Sequence[float] = ()) -> Tableau:
    """The tableau of a name.

    nodes  of 'res_2s' c2, of 'res_3s' c2 and c3, both above 0; none are 1/2 and 1

    Raises ValueError on an unknown name, nodes of another, or those that make none.
    """
    try:
        make = NAMED[checks.one_of("tableau", name, tuple(NAMED))]
    except ValueError as error:
        raise ValueError(f"{error}; or give your own: {FORM}") from None
    if not nodes:
        return read(make())
    if len(nodes) != FAMILIES.get(name, 0):
        raise ValueError(
            f"nodes={list(nodes)} with tableau={name!r}: 'res_2s' takes c2, 'res_3s' c2 and c3, others none"
        )
    apart = len(nodes) < 2 or min(abs(nodes[0] - c) for c in (2.0 / 3.0, nodes[1])) > 1e-6
    if not (apart and all(0.0 < c <= 1.0 for c in nodes)):
        raise ValueError(
            f"nodes={list(nodes)}: stages lie above 0 and up to 1; c2 of 'res_3s' is neither 2/3 nor c3"
        )
    return read(make(*nodes))
