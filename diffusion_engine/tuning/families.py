"""Families of learned solvers: what of their levels and weights is free, as torch functions of parameters.

Each ends at clean data. A family says with which solvers it may begin, and over how many steps; made of the
weights of one it gives the times t [N] of its calls, and its states [N + 1, N + 1] in terms of x_0 and of the
calls' estimates of x0 (learned/weights.py), float64.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..learned.weights import Weights
from ..processes import GaussianProcess
from ..processes.levels import Levels

Made = tuple[Tensor, Tensor]


class Times:
    """Falling times of N calls: shares of what lies between the first and the process's least."""

    def __init__(self, process: GaussianProcess, begun: Weights) -> None:
        t = torch.tensor([p.t for p in begun.points[:-1]], dtype=torch.float64)
        self.process, self.low, self.first = process, process.range[0], t[0]
        below = torch.cat((t[1:], torch.tensor([self.low], dtype=torch.float64)))
        gaps = t - below
        if not bool((gaps > 0.0).all()):
            raise ValueError("the solver to begin with calls the network twice at a time")
        self.shares = gaps.log().requires_grad_()

    def __call__(self) -> tuple[Tensor, Tensor, Tensor]:
        """t [N], and alpha and sigma of the calls and of clean data behind them [N + 1]."""
        gaps = torch.softmax(self.shares, 0) * (self.first - self.low)
        t = torch.cat((self.first[None], self.low + gaps[1:].flip(0).cumsum(0).flip(0)))
        at = Levels.of(self.process, t)
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        return t, torch.cat((at.alpha, one)), torch.cat((at.sigma, zero))


class BNS:
    """Bespoke non-stationary solvers (Shaul et al. 2024): every number of x_i = a_i x_0 + sum_j b_ij D_j, and
    the times. What is free is the departure from what keeps noise level and x0.
    """

    calls: ClassVar[str] = "1 to 9 calls, whose sums fit the slots of a run"
    begins: ClassVar[tuple[str, ...]] = ("dpmpp_2m", "unipc", "deis", "dpmpp_3m", "ipndm")

    def __init__(self, process: GaussianProcess, begun: Weights, calls: int) -> None:
        self.times, n = Times(process, begun), calls
        states = torch.tensor(begun.states)
        self.b = states[1:, 1:].tril(-1).clone().requires_grad_()
        self.a, self.newest = (
            torch.zeros(n, dtype=torch.float64, requires_grad=True) for _ in "ab"
        )

    @staticmethod
    def steps(calls: int) -> int:
        if not 1 <= calls <= 9:
            raise ValueError(f"family 'bns' has {BNS.calls}, and not {calls}")
        return calls

    @property
    def parameters(self) -> list[Tensor]:
        return [self.times.shares, self.b, self.a, self.newest]

    def __call__(self) -> Made:
        t, alpha, sigma = self.times()
        n = len(t)
        a = sigma[1:] / sigma[0] * self.a.exp()
        # In clean data nothing of the first noise is left but what is learned.
        a = torch.cat((a[:-1], self.a[-1:] / sigma[0]))
        b = self.b.tril(-1)
        b = b + torch.diag(alpha[1:] - a * alpha[0] - b.sum(1) + self.newest)
        first = torch.eye(n + 1, dtype=torch.float64)[:1]
        return t, torch.cat((first, torch.cat((a[:, None], b), 1)))


class Multistep:
    """x_i of x_{i-1} and the last three estimates, every weight its own, and the times: of many calls."""

    calls: ClassVar[str] = "1 to 64 calls"
    begins: ClassVar[tuple[str, ...]] = ("dpmpp_2m", "dpmpp_3m", "deis", "ipndm")
    depth: ClassVar[int] = 3

    def __init__(self, process: GaussianProcess, begun: Weights, calls: int) -> None:
        self.times, n = Times(process, begun), calls
        self.a, self.newest = (
            torch.zeros(n, dtype=torch.float64, requires_grad=True) for _ in "ab"
        )
        states, sigma = torch.tensor(begun.states), [p.sigma for p in begun.points]
        older = torch.zeros(n, self.depth - 1, dtype=torch.float64)
        for i in range(1, n + 1):
            step = states[i] - sigma[i] / sigma[i - 1] * states[i - 1]
            for k in range(min(self.depth - 1, i - 1)):
                older[i - 1, k] = step[i - 1 - k]
        self.older = older.requires_grad_()

    @staticmethod
    def steps(calls: int) -> int:
        if not 1 <= calls <= 64:
            raise ValueError(f"family 'multistep' has {Multistep.calls}, and not {calls}")
        return calls

    @property
    def parameters(self) -> list[Tensor]:
        return [self.times.shares, self.older, self.a, self.newest]

    def __call__(self) -> Made:
        t, alpha, sigma = self.times()
        unit = torch.eye(len(t) + 1, dtype=torch.float64)
        states = [unit[0]]
        for i in range(1, len(t) + 1):
            a = self.a[-1] if i == len(t) else sigma[i] / sigma[i - 1] * self.a[i - 1].exp()
            older = self.older[i - 1, : max(0, min(self.depth - 1, i - 1))]
            new = alpha[i] - a * alpha[i - 1] - older.sum() + self.newest[i - 1]
            step = a * states[-1] + new * unit[i]
            for k in range(len(older)):
                step = step + older[k] * unit[i - 1 - k]
            states.append(step)
        return t, torch.stack(states)


class EPD:
    """Ensemble parallel directions (Zhu et al. 2025, eq. 9): a call at x_i, K at points between it and
    x_{i+1} on its line, and a step along their mean; last a call to clean data.

    Free are the points r, the mean's weights, and factors of each direction and of the noise that the network
    is told, within 5 %.
    """

    calls: ClassVar[str] = "4, 7, 10, ... calls with K = 2, and 3, 5, 9, ... with K = 1"
    begins: ClassVar[tuple[str, ...]] = ("ddim",)  # for its points alone
    within: ClassVar[float] = 0.05

    def __init__(self, process: GaussianProcess, begun: Weights, calls: int) -> None:
        points = begun.points[:-1]
        if points[0].alpha == 0.0:
            raise ValueError(
                f"EPD goes by sigma / alpha, which is infinite at t={points[0].t:g}; learn family 'bns'"
            )
        self.process, self.alpha = process, points[0].alpha
        self.lam = torch.tensor([p.lam for p in points], dtype=torch.float64)
        size = len(points) - 1, directions(calls)
        r = torch.linspace(-1.0, 1.0, size[1] + 2, dtype=torch.float64)[1:-1]
        self.r = (3.0 * r).repeat(size[0], 1).requires_grad_()
        self.weights, self.along, self.told = (
            torch.zeros(size, dtype=torch.float64, requires_grad=True) for _ in "wat"
        )

    @staticmethod
    def steps(calls: int) -> int:
        if calls < 3 or calls > 64 or not directions(calls):
            raise ValueError(f"family 'epd' has {EPD.calls}, and not {calls}")
        return (calls - 1) // (directions(calls) + 1) + 1

    @property
    def parameters(self) -> list[Tensor]:
        return [self.r, self.weights, self.along, self.told]

    def __call__(self) -> Made:
        r, w = torch.sigmoid(self.r), torch.softmax(self.weights, 1)
        along, told = (
            1.0 + self.within * (2.0 * torch.sigmoid(0.5 * free) - 1.0)
            for free in (self.along, self.told)
        )
        between = (1.0 - r) * self.lam[:-1, None] + r * self.lam[1:, None]
        g, middle = (-self.lam).exp(), (-between).exp()
        unit = torch.eye(2 + r.numel() + len(r), dtype=torch.float64)
        bar, states, lams = unit[0] / self.alpha, [], []  # of x / alpha
        for i in range(len(r)):
            states.append(bar)
            lams.append(self.lam[i])
            slope, mean = (bar - unit[len(states)]) / g[i], torch.zeros_like(bar)
            for k in range(r.shape[1]):
                states.append(bar + (middle[i, k] - g[i]) * slope)
                lams.append(between[i, k] - told[i, k].log())
                own = (states[-1] - unit[len(states)]) / middle[i, k]
                mean = mean + w[i, k] * along[i, k] * own
            bar = bar + (g[i + 1] - g[i]) * mean
        t = times_of(self.process, torch.stack([*lams, self.lam[-1]]))
        scale = Levels.of(self.process, t).alpha
        return t, torch.cat((torch.stack([*states, bar]) * scale[:, None], unit[-1:]))


def directions(calls: int) -> int:
    """K of EPD: 2 where the calls but for the last are steps of 3, 1 where of 2, else 0."""
    return 2 if (calls - 1) % 3 == 0 else int((calls - 1) % 2 == 0)


def times_of(process: GaussianProcess, lam: Tensor) -> Tensor:
    """The times of log(alpha / sigma), and their derivative by that of the inverse function."""
    t = torch.tensor(process.t_of_lam(lam.detach().numpy()), dtype=torch.float64).requires_grad_()
    with torch.enable_grad():
        rate = torch.autograd.grad(Levels.of(process, t).lam.sum(), t)[0]
    return t.detach() + (lam - lam.detach()) / rate


FAMILIES: dict[str, Any] = {"bns": BNS, "multistep": Multistep, "epd": EPD}
