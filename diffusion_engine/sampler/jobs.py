"""A part of a request as jobs of a batch, one for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import repeat

from torch import Tensor

from .. import checks
from ..executors.job import Given, Job, NoiseSource
from ..networks.network import Condition
from ..plan import Plan
from .request import Request


def jobs(
    part: Request,
    plans: Sequence[Plan],
    conditions: Sequence[Condition | None],
    shape: Sequence[int],
) -> list[Job]:
    """Those of a part of a request.

    plans       of each sample
    conditions  of each branch, [n, ...] tensors
    shape       of one sample
    """
    source = part.noise_source()
    shared = None if source is None else Shared(source, (part.n, *shape))
    brownian = isinstance(part.noise, str)  # Request made sure of the name
    columns = (
        plans,
        part.seeds,
        _by_sample(conditions, part.n),
        repeat(None) if part.x is None else part.x.unbind(),
        repeat(None) if shared is None else (partial(shared, i) for i in range(part.n)),
        repeat(brownian),
        repeat(None) if part.mask is None else part.mask.unbind(),
        repeat(None) if part.known is None else part.known.unbind(),
    )
    return list(map(Job, *columns))


class Shared:
    """Normals that a source makes for all samples of a part at once, handed out sample by sample.

    shape  [n, *shape] of what it makes
    """

    def __init__(self, source: NoiseSource, shape: Sequence[int]) -> None:
        self.source, self.shape = source, tuple(shape)
        self._row, self._made = -1, dict[int, Sequence[Tensor]]()

    def __call__(self, sample: int, row: int, m: int) -> Tensor:
        """The normals of a sample for normal m of a row."""
        if row != self._row:
            self._row, self._made = row, {}
        if m not in self._made:
            made = self.source(row, m)
            tensor = isinstance(made, Tensor)
            if not tensor or made.shape != self.shape:  # one for all would be no noise
                got = list(made.shape) if tensor else checks.said(made)
                raise ValueError(
                    f"noise of row {row}, draw {m} is {got}; give a tensor {list(self.shape)}"
                )
            self._made[m] = made.unbind()
        return self._made[m][sample]


def _by_sample(conditions: Sequence[Condition | None], n: int) -> list[tuple[Given, ...]]:
    """The conditions of each sample, one for each branch."""
    if not conditions or conditions[0] is None:
        return [()] * n
    return list(zip(*(_split(c, n) for c in conditions if c is not None), strict=True))


def _split(condition: Condition, n: int) -> Sequence[Given]:
    if isinstance(condition, Tensor):
        return condition.unbind()
    parts: Mapping[str, Sequence[Tensor]] = {name: t.unbind() for name, t in condition.items()}
    return [{name: tensors[i] for name, tensors in parts.items()} for i in range(n)]
