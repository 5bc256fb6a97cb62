"""What a run of a learned table keeps between its calls: as few slots as its future needs.

After call i the future is made of the past, x_0, D_0 ... D_i, by the rows of a block F of the table: those of
x_{i+1} ... x_N, the columns of the past. As many slots as F has rank are enough, and none fewer are: 2, 3, 4,
... as long as every call counts to the end, and towards it one a state that is still to come. Slot 0 holds
x_{i+1}, which the next call reads. The others are vectors of the past itself where F's rows span them, and
else sums of states to come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ops.layout import SLOTS

Array = np.ndarray
RANK = 1e-12  # what is left of a row, of unit length, that others span
ALONG = 0.3  # how far from the span of those kept a vector of the past is at least, to be kept


@dataclass(frozen=True, eq=False)
class Kept:
    """What the slots hold after a call: slot -> its weights of x_0, D_0, ..., D_{N-1}."""

    slots: dict[int, Array]

    @property
    def vectors(self) -> Array:
        return np.array([self.slots[k] for k in sorted(self.slots)])


def kept(states: Array, scale: Array) -> list[Kept]:
    """What is held before the first call, and after each; raises ValueError where the slots are too few.

    states  [N + 1, N + 1], the states in terms of x_0, D_0, ..., D_{N-1}
    scale   [N + 1], how large x_0 and the D are: a rank is one of numbers of this size
    """
    n = len(states) - 1
    made = [Kept({0: states[0]})]
    for i in range(n):
        block = np.zeros((n - i, n + 1))
        block[:, : i + 2] = states[i + 1 :, : i + 2]
        made.append(_placed(_chosen(block, scale, i + 2), made[-1]))
    most = max(len(each.slots) for each in made)
    if most > SLOTS:
        raise ValueError(
            f"the table needs {most} slots and a run has {SLOTS}: what is still to come is made of {most} "
            "different sums of the past. Tables whose every row counts every call have 9 calls at most; of "
            "more calls, leave the older ones out of the later rows (0 in b, or shorter rows of base "
            "'previous')"
        )
    return made


def _chosen(block: Array, scale: Array, past: int) -> list[Array]:
    """Vectors that span the rows of a block, the first of them the first row."""
    size = np.linalg.norm(block * scale, axis=1)
    rows = (block * scale)[size > 0.0] / size[size > 0.0, None]
    own = np.eye(block.shape[1])[:past][::-1]  # the newest first
    span = np.linalg.svd(rows, full_matrices=False)
    basis = span.Vh[RANK * max(1.0, span.S[0]) < span.S]
    spanned = [e for e in own if np.linalg.norm(e - basis.T @ (basis @ e)) < 1e-11]
    chosen, left = [block[0]], _without(rows, rows[:1])
    held = rows[:1] / np.linalg.norm(rows[0])
    while (rest := np.linalg.norm(left, axis=1)).max() > RANK:
        off = _rounded([float(np.linalg.norm(_without(e[None], held))) for e in spanned])
        if len(off) and off.max() > ALONG:
            picked = spanned.pop(int(np.argmax(off)))
            chosen.append(picked)
        else:
            best = int(np.argmax(_rounded(rest)))
            picked = rows[best]
            chosen.append(block[size > 0.0][best])
        step = _without(picked[None], held)
        held = np.concatenate([held, step / np.linalg.norm(step)])
        left = _without(rows, held)
    return chosen


def _rounded(sizes: Array | list[float]) -> Array:
    """For comparison: equal ones differ by rounding, otherwise on every processor."""
    return np.round(np.asarray(sizes), 6)


def _without(rows: Array, held: Array) -> Array:
    """Rows without their parts along vectors that are orthonormal, twice: once leaves rounding's."""
    for _ in range(2):
        rows = rows - rows @ held.T @ held
    return rows


def _placed(chosen: list[Array], before: Kept) -> Kept:
    """Vectors in slots: the state in slot 0, what was held already where it was, the others where room is."""
    slots = {0: chosen[0]}
    fresh = []
    for vector in chosen[1:]:
        there = [
            k for k, v in before.slots.items() if k and k not in slots and np.array_equal(v, vector)
        ]
        if there:
            slots[there[0]] = vector
        else:
            fresh.append(vector)
    free = (k for k in range(1, len(chosen) + len(before.slots)) if k not in slots)
    slots |= dict(zip(free, fresh, strict=False))
    return Kept(slots)


def change(
    before: Kept, after: Kept, call: int, scale: Array
) -> dict[int, tuple[dict[int, float], float]]:
    """slot -> the weights of old slots, and of the call's estimate, that its new content has.

    A slot that keeps what it held is left out.
    """
    old, made = before.vectors * scale, {}
    size = np.linalg.norm(old, axis=1)
    for k, vector in after.slots.items():
        if k in before.slots and np.array_equal(before.slots[k], vector):
            continue
        past = vector * scale
        past[call + 1] = 0.0
        found = np.linalg.lstsq((old / size[:, None]).T, past, rcond=None)[0]
        found[np.abs(found) <= 1e-14 * np.abs(found).max()] = 0.0
        made[k] = (
            dict(zip(sorted(before.slots), found / size, strict=True)),
            float(vector[call + 1]),
        )
    return made
