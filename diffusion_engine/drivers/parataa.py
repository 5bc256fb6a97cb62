"""ParaTAA: parallel in time with triangular Anderson acceleration (Tang et al. 2024).

With g(u) the iteration of window.py and r_j = g(u)_j - u_j, Anderson's method takes of the last m differences

    u_j^{k+1} = g(u^k)_j - (dU_j + dR_j) gamma_j,    dU = [u^k - u^{k-1}, ...],  dR = [r^k - r^{k-1}, ...],

and the triangular one a gamma for each point that looks at none behind it:

    gamma_j = argmin || r_{1..j} - dR_{1..j} gamma ||^2,

so that what is exact stays so. The first point that is not settled is taken as it comes, which keeps the
worst case that of the run in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .. import checks
from .paradigms import Mix, ParaDiGMS
from .window import Window, dots

MOST = 16
HISTORY = f"differences are a whole number, 1 to {MOST}"
RIDGE = 1e-8  # of the mean of the diagonal, added to it: residuals of late iterations are nearly parallel


@dataclass(frozen=True)
class ParaTAA(ParaDiGMS):
    """Anderson acceleration of the iteration over a window's points; the other options are those of
    ParaDiGMS.

    history  m, differences of iterations that are looked at, 1 to 16: an iteration takes m^2 / 2 sums of each
    """

    name: ClassVar[str] = "parataa"
    source: ClassVar[str] = "Tang et al. 2024, algorithm 1"

    history: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.settle(self, "history", checks.whole, 1, HISTORY)
        if self.history > MOST:
            raise ValueError(f"history={self.history}: {HISTORY}")

    def mixing(self) -> Mix:
        return Anderson(self.history)


class Anderson:
    """What one sample's iterations were, for the mixing of their points.

    m  differences at most
    """

    def __init__(self, m: int) -> None:
        self.m = m
        self._last: tuple[Tensor, Tensor] | None = None
        self._du: list[Tensor] = []  # newest first, [n, I, C, *pixel] of the window's points
        self._dr: list[Tensor] = []

    def __call__(self, window: Window, after: Tensor, settled: int) -> Tensor:
        residual, n = after - window.read, len(after)
        if self._last is not None:
            old = len(self._last[0])
            self._du.insert(0, window.read[:old] - self._last[0])
            self._dr.insert(0, residual[:old] - self._last[1])
        # Points that are new have no differences.
        self._du, self._dr = ([_padded(d, n) for d in of[: self.m]] for of in (self._du, self._dr))
        mixed = after
        if self._du and settled + 1 < n:
            mixed = after.clone()
            gamma = self._gamma(residual[settled:], settled, window)
            for g, du, dr in zip(gamma, self._du, self._dr, strict=True):
                mixed[settled + 1 :] -= g * (du + dr)[settled + 1 :]
        self._last = window.read[settled:], residual[settled:]
        self._du, self._dr = ([d[settled:] for d in of] for of in (self._du, self._dr))
        return mixed

    def _gamma(self, residual: Tensor, settled: int, window: Window) -> Tensor:
        """Of each difference its weight at the points behind the first that is not settled."""
        dr, m = [d[settled:] for d in self._dr], len(self._dr)
        weight = window.scales[window.base + settled :][: len(residual)] ** -2
        gram, right = np.empty((len(residual), m, m)), np.empty((len(residual), m, 1))
        for i in range(m):
            right[:, i, 0] = dots(dr[i], residual).cpu().numpy() * weight
            for j in range(i + 1):
                gram[:, i, j] = gram[:, j, i] = dots(dr[i], dr[j]).cpu().numpy() * weight
        gram, right = gram.cumsum(0), right.cumsum(0)
        ridge = RIDGE * gram.trace(axis1=1, axis2=2) / m
        gram += np.where(ridge, ridge, 1.0)[:, None, None] * np.eye(m)
        gamma = np.linalg.solve(gram, right)[1:, :, 0].T
        made = torch.from_numpy(np.ascontiguousarray(gamma)).to(residual)
        return made.reshape(*made.shape, *(1,) * (residual.ndim - 1))


def _padded(given: Tensor, count: int) -> Tensor:
    """With zeros up to so many points."""
    return torch.cat([given, given.new_zeros(count - len(given), *given.shape[1:])])
