"""Denoising diffusion restoration models (Kawar et al., NeurIPS 2022).

With A = U S V^T, xbar = V^T x / alpha and ybar = S^+ U^T y a measurement is one of single components: ybar_i
is component i of x0 and noise of deviation d_i = sigma_y / s_i; where s_i = 0 there is none. In
g = sigma / alpha the run starts at

    xbar_i ~ N(ybar_i, g^2 - d_i^2)   where g >= d_i,   N(0, g^2) elsewhere                            (eq. 4)

and a step from g to h < g, with theta = V^T E[x0 | x], leads to                                       (eq. 5)

    N(theta_i + sqrt(1 - eta^2) h (xbar_i - theta_i) / g,     eta^2 h^2)              s_i = 0
    N(theta_i + sqrt(1 - eta^2) h (ybar_i - theta_i) / d_i,   eta^2 h^2)              h < d_i
    N((1 - eta_b) theta_i + eta_b ybar_i,                     h^2 - eta_b^2 d_i^2)    h >= d_i
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import checks
from ..executors.course import STAY, Lead, Move
from ..executors.lru import Lru
from ..networks.parameterisation import Parameterisation
from ..plan import Row
from ..plan.linear import slot
from ..processes import Point
from ..sampler.led import Run
from ..solvers.base import finite_start, steps
from ..solvers.update import Update
from .measured import Measured
from .operators import Operator

DENSE = 4096  # elements of a sample: the matrices of a decomposition have as many a side
KEPT: Lru[tuple, Components] = Lru(1 << 30)  # bytes
SMALL = 1e-6  # of the largest singular value: what is below counts as 0


@dataclass(frozen=True)
class Components:
    """The decomposition of A for samples of a shape, float64.

    v  [n, n], its columns the components
    s  [n] singular values, 0 where A sees nothing
    u  [m, n] their images, unit vectors where s is above 0
    """

    v: Tensor
    s: Tensor
    u: Tensor

    @classmethod
    def of(cls, operator: Operator, shape: Sequence[int], device: torch.device) -> Components:
        """Of an operator, whose matrix is made of what it does to unit vectors."""
        n = math.prod(shape)
        unit = torch.eye(n, dtype=torch.float64, device=device).reshape(n, *shape)
        matrix = operator.apply(unit).flatten(1).T
        u, s, vt = torch.linalg.svd(matrix, full_matrices=len(matrix) < n)
        s = torch.where(s > SMALL * s[0], s, 0.0)
        rest = n - len(s)
        return cls(
            vt.T.contiguous(), torch.cat([s, s.new_zeros(rest)]),
            torch.cat([u, u.new_zeros(len(u), rest)], 1),
        )  # fmt: skip

    def of_image(self, x: Tensor) -> Tensor:
        """V^T x, [n] of [C, *pixel]."""
        return self.v.T @ x.double().flatten()

    def of_measurement(self, y: Tensor) -> Tensor:
        """S^+ U^T y, [n], 0 where s is."""
        return torch.where(self.s > 0.0, self.u.T @ y.double().flatten() / self.s, 0.0)

    def image(self, xbar: Tensor, shape: Sequence[int]) -> Tensor:
        """V xbar, [C, *pixel]."""
        return (self.v @ xbar).reshape(tuple(shape))


@dataclass(frozen=True)
class DDRM(Measured):
    """Steps of the components of x0 that a linear A sees, each with the noise that its measurement has.

    operator, sigma_y  as of Measured and InverseProblem
    eta    how much of a step's noise is fresh, 0 to 1
    eta_b  how much a component that is seen well follows ybar, and not the estimate, 0 to 1

    A is decomposed as a dense matrix, once for each driver object and shape, for samples of 4096 elements at
    most. Of the solver the times count alone.
    """

    name: ClassVar[str] = "ddrm"
    source: ClassVar[str] = "Kawar et al. 2022 (DDRM), eq. 4 and 5"
    served: ClassVar[bool] = False
    slots: ClassVar[int] = 2
    eta: float = 0.85
    eta_b: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("eta", "eta_b"):
            if not 0.0 <= checks.number(name, getattr(self, name)) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name):g}: give a share from 0 to 1")

    def objection(self, network: Parameterisation, points: Sequence[Point]) -> str | None:
        if math.prod(network.shape) > DENSE:
            return (
                f"it decomposes A as a dense matrix, and samples {list(network.shape)} have more than "
                f"{DENSE} elements; use 'diffpir' or 'pgdm'"
            )
        return finite_start(network.process, points)

    def lead(self, run: Run) -> Lead:
        y = self.measurement(run)
        parts = self._components(run.shape, y.device)
        ybar, sees = parts.of_measurement(y), parts.s > 0.0
        d = torch.where(sees, self.sigma_y / parts.s, math.inf)
        pairs = list(steps(run.points))
        rows = [run.row(Update(s, {0: slot(1)}, t), i) for i, (s, t) in enumerate(pairs, 1)]
        seen = yield Move(run.plan.rows[0], STAY)
        first, z = run.points[0], seen.normal(0).double().flatten()
        known, wide = d <= first.ratio, (first.ratio**2 - d**2).clamp(min=0.0).sqrt()
        xbar = torch.where(known, ybar + wide * z, first.ratio * z)
        seen.slots[1].copy_(first.alpha * parts.image(xbar, run.shape))
        seen = yield Move(Row(None, {0: slot(1)}, state=first), rows[0])
        for i, (s, t) in enumerate(pairs):
            xbar = parts.of_image(seen.x) / s.alpha
            theta = parts.of_image(seen.denoised)
            mean, std = self._step(xbar, theta, ybar, d, s.ratio, t.ratio)
            made = mean + std * seen.normal(i + 1).double().flatten()
            seen.slots[1].copy_(t.alpha * parts.image(made, run.shape))
            seen = yield Move(rows[i], rows[i + 1] if i + 1 < len(rows) else None)
        return {"seen": int(sees.sum())}

    def _step(
        self, xbar: Tensor, theta: Tensor, ybar: Tensor, d: Tensor, g: float, h: float
    ) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the components of x at h, of those at g."""
        rest = math.sqrt(1.0 - self.eta**2) * h
        unseen = theta + rest * (xbar - theta) / g
        faint = theta + rest * (ybar - theta) / d
        clear = (1.0 - self.eta_b) * theta + self.eta_b * ybar
        left = (h**2 - (self.eta_b * d) ** 2).clamp(min=0.0).sqrt()
        fresh = torch.full_like(theta, self.eta * h)
        mean = torch.where(d.isinf(), unseen, torch.where(d > h, faint, clear))
        return mean, torch.where(d > h, fresh, left)

    def _components(self, shape: tuple[int, ...], device: torch.device) -> Components:
        """Those of the operator, made once for all drivers with it."""
        by = self.operator if isinstance(self.operator, Operator) else repr(self.operator)
        key = by, shape, device
        if (found := KEPT.get(key)) is None:
            found = Components.of(self.made, shape, device)
            KEPT.put(key, found, sum(t.nbytes for t in (found.v, found.s, found.u)))
        return found
