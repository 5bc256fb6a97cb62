"""Weak errors without sampling: of the law at t_min, from the true law at t_max.

On Gaussian data a run is affine and its law exact. A little off it, on data of density

    N(m, s^2) (1 + e He_n((x0 - m) / s)),   n = 3 is skew, 4 has heavy tails,

the network is known to first order in e, and a run's moments too, to first order: with X the end on Gaussian
data, d X / de = sum_i w_i q_i, where q_i is the change of the network's output in call i at what it reads on
Gaussian data, and w_i what the end takes of it. So d E[f(X)] / de = sum_i w_i E[f'(X) q_i(read_i)], an
integral over two or three jointly Gaussian numbers, exact by quadrature. The networks' change is a polynomial
of second or third degree: this sees what nonlinear networks do to a solver, in every condition of order with
one nonlinear term, which up to order 3 are all that additive noise has.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import affine
import numpy as np
import torch

from diffusion_engine import ScoreNetwork
from diffusion_engine.networks.linearize import linearized
from diffusion_engine.networks.prediction import Velocity
from diffusion_engine.processes import CLD, Point, grids
from diffusion_engine.solvers import Solver
from diffusion_engine.testing import Gaussian

MEAN, STD, STEP = 0.3, 0.5, 1e-3
HERMITE = (
    lambda u: u**0,
    lambda u: u,
    lambda u: u**2 - 1.0,
    lambda u: u**3 - 3.0 * u,
    lambda u: u**4 - 6.0 * u**2 + 3.0,
)


@dataclass(frozen=True)
class Bent(Gaussian):
    """N(mean, std^2) (1 + e He_n), to first order in e: x is N(alpha mean, V) (1 + e rho^n He_n(u)) with
    u = (x - alpha mean) / sqrt(V), rho = alpha std / sqrt(V), and so is its score."""

    n: int = 3
    e: float = 0.0

    def denoised(self, x, alpha, sigma):
        size = (alpha**2 * self.std**2 + sigma**2) ** 0.5
        u, rho = (x - alpha * self.mean) / size, alpha * self.std / size
        change = self.n * rho ** (self.n - 1) * HERMITE[self.n - 1](u) * sigma**2 * self.std
        return super().denoised(x, alpha, sigma) + self.e * change / size**2


class BentVelocity:
    """The same of CLD: (x, v) has u = (E[x0 | x, v] - mean) / (std rho), rho^2 being that estimate's variance
    by std^2. Called for any mix of times."""

    def __init__(self, process, n, e):
        self.process, self.prediction, self.n, self.e = process, Velocity(mixed=True), n, e

    def __call__(self, state, label):
        times, place = label.unique(return_inverse=True)
        table = torch.tensor([self.at(t) for t in times.tolist()], dtype=torch.float64)
        on_x, on_v, offset, by_x, by_v, shift, rho, own, on_output = table[place, :, None].unbind(1)
        x, v = state.double().chunk(2, dim=1)
        u = by_x * x + by_v * v + shift
        score = on_x * x + on_v * v + offset
        score = score + self.e * self.n * rho**self.n * HERMITE[self.n - 1](u) * by_v
        return ((score - own * v) / on_output).to(state.dtype)

    def at(self, t):
        return *law_at(self.process, t), *self.prediction.score(self.process, t)


@cache
def law_at(process: CLD, t: float) -> tuple[float, ...]:
    """Of one time: the velocity's score and u as weights of x, v and 1, and rho."""
    a, (_, spread) = np.array(process.mean(t)), true_law(process, t)
    inverse = np.linalg.inv(spread)
    pull = STD * inverse @ a
    rho = math.sqrt(STD * pull @ a)
    return *-inverse[1], MEAN * inverse[1] @ a, *pull / rho, -MEAN * pull @ a / rho, rho


def network(process, derivatives: bool = False, n: int = 3, e: float = 0.0) -> ScoreNetwork:
    """The exact network; `derivatives` along the velocity are what sscs_exact needs."""
    if not isinstance(process, CLD):
        return Bent(MEAN, STD, n, e).network(process)
    module = BentVelocity(process, n, e)
    made = ScoreNetwork(module, process, (1,), module.prediction, label_dtype=torch.float64)
    return linearized(made) if derivatives else made


def true_law(process, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of x, or of (x, v)."""
    if isinstance(process, CLD):
        a, given = np.array(process.mean(t)), process.covariance(t).matrix
    else:
        at = process.at(t)
        a, given = np.array([at.alpha]), np.array([[at.sigma**2]])
    return MEAN * a, given + STD**2 * np.outer(a, a)


class Run:
    """Of a solver, from the true law at its first time: what its calls read and where it ends, as weights.

    mean, spread  of the true law at the end
    size          standard deviations of that law
    end           weights of x, or [x, v], after the last row
    both          [calls, k, columns]: of what a call read, and of the end's x
    taken         [calls, outputs]: what the end's x takes of the outputs
    """

    def __init__(self, rule: Solver, network: ScoreNetwork, points: Sequence[Point]) -> None:
        process, first, last = network.process, points[0], points[-1]
        mean, spread = true_law(process, first.t)
        given = np.column_stack([mean, np.linalg.cholesky(spread)])
        plan = rule.plan(network.parameterisation, points, "state" if len(mean) == 1 else "whole")
        seen = list(affine.followed(plan, network, given))
        calls = [i for i, row in enumerate(plan.rows) if row.call]
        self.labels = torch.tensor([plan.rows[i].call.label for i in calls], dtype=torch.float64)
        self.mean, self.spread = true_law(process, last.t)
        self.size = np.sqrt(np.diag(self.spread))
        self.rho = last.alpha * STD / self.size[0]
        self.end = seen[-1].slots[: len(mean)]
        self.both = np.stack([np.concatenate([seen[i].read, self.end[:1]]) for i in calls])
        self.taken = seen[-1].pokes[0, [i - 1 for i in calls]]

    def off(self) -> np.ndarray:
        """Errors of mean and covariance, in units of the true law's deviations."""
        mean, spread = affine.law(self.end)
        off = (spread - self.spread) / np.outer(self.size, self.size)
        return np.concatenate([(mean - self.mean) / self.size, off.ravel()])

    def change(self, network: Callable[..., ScoreNetwork], n: int) -> np.ndarray:
        """d E[He_k(u)] / de by k!, k = 1 to 4, u being the end's x less its true mean by its deviation."""
        nodes, weights = quadrature(self.both)
        state = torch.from_numpy(nodes[..., :-1].reshape(-1, nodes.shape[-1] - 1))
        labels = self.labels.repeat_interleave(len(weights))
        up, down = (torch.cat(network(n=n, e=e)(state, labels, None), 1) for e in (STEP, -STEP))
        outputs = ((up - down) / (2.0 * STEP)).numpy().reshape(*nodes.shape[:2], -1)
        moved = np.einsum("ij,ipj->ip", self.taken, outputs) / self.size[0] * weights
        u = (nodes[..., -1] - self.mean[0]) / self.size[0]
        return np.array(
            [(HERMITE[k - 1](u) * moved).sum() / math.factorial(k - 1) for k in range(1, 5)]
        )

    def errors(self, network: Callable[..., ScoreNetwork]) -> np.ndarray:
        """Of mean, covariance, and of the change of He_1 to He_4 with e for n = 3 and 4."""
        true = {n: np.where(np.arange(1, 5) == n, self.rho**n, 0.0) for n in (3, 4)}
        return np.concatenate([self.off(), *(self.change(network, n) - true[n] for n in true)])


def quadrature(weights: np.ndarray, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Nodes [..., points, k] and their weights [points] for k jointly Gaussian numbers [..., k, columns]."""
    z, w = np.polynomial.hermite_e.hermegauss(count)
    k = weights.shape[-2]
    grid = np.array(list(product(z, repeat=k)))
    share = np.array(list(product(w, repeat=k))).prod(axis=1) / (2.0 * math.pi) ** (k / 2.0)
    spread = weights[..., 1:] @ np.swapaxes(weights[..., 1:], -1, -2)
    values, axes = np.linalg.eigh(spread)
    root = axes * np.sqrt(np.maximum(values, 0.0))[..., None, :]
    return weights[..., None, :, 0] + np.einsum("...ij,pj->...pi", root, grid), share


def error(rule: Solver, process, steps: int) -> float:
    """The greatest of a run's errors, on the default grid from t_max to t_min."""
    points = grids.points(process, steps, rule.default_grid(process), "t_min")
    exact = partial(network, process, rule.name == "sscs_exact")
    return float(np.abs(Run(rule, exact(), points).errors(exact)).max())
