"""Correlated mixtures as networks, operators that are matrices, and the exact law of runs that are affine."""

import numpy as np
import torch
from oracles.correlated import Correlated
from oracles.problems import VPLinear
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.drivers.operators import Operator
from diffusion_engine.processes import VP
from diffusion_engine.processes.levels import Levels

SIZE = 5
REFERENCE = {"dtype": torch.float64, "backend": "torch"}
_rng = np.random.default_rng(5)
_roots = _rng.normal(size=(2, SIZE, SIZE)) / SIZE**0.5
COVARIANCES = 0.3 * _roots @ _roots.transpose(0, 2, 1) + 0.05 * np.eye(SIZE)
MEANS = _rng.normal(size=(2, SIZE)) * 0.5
MATRIX = _rng.normal(size=(3, SIZE)) / 2.0
Y = _rng.normal(size=(4, 3)) / 2.0
MIXTURE = Correlated([0.4, 0.6], MEANS, COVARIANCES)
GAUSSIAN = Correlated([1.0], MEANS[:1], COVARIANCES[:1])


class Denoiser(nn.Module):
    """E[x0 | x] of a mixture, by autograd-friendly torch in float64."""

    def __init__(self, data, process):
        super().__init__()
        self.data, self.process = data, process
        self.log_weights = torch.from_numpy(np.log(data.weights))
        self.means, self.covariances = map(torch.from_numpy, (data.means, data.covariances))

    def forward(self, x, t):
        at = Levels.of(self.process, t.double())
        alpha, sigma = at.alpha[:, None, None, None], at.sigma[:, None, None, None]
        eye = torch.eye(x.shape[1], dtype=torch.float64)
        spread = alpha**2 * self.covariances + sigma**2 * eye
        apart = x.double()[:, None] - at.alpha[:, None, None] * self.means
        solved = torch.linalg.solve(spread, apart[..., None])[..., 0]
        log = self.log_weights - 0.5 * ((apart * solved).sum(-1) + torch.logdet(spread))
        pulled = torch.einsum("kij,nkj->nki", self.covariances, solved)
        each = self.means + at.alpha[:, None, None] * pulled
        return (log.softmax(1)[..., None] * each).sum(1).to(x.dtype)


def network(data=MIXTURE, process=None, **options):
    process = process or VP()
    options = {"prediction": "x0", "label_dtype": torch.float64, "name": "correlated"} | options
    return ScoreNetwork(Denoiser(data, process), process, (SIZE,), **options)


def matrix(a=MATRIX):
    """x -> a x as an operator."""
    a = torch.from_numpy(a)
    return Operator(lambda x: x @ a.T.to(x), lambda y: y @ a.to(y), "matrix")


def sampler(driver, solver, steps, data=MIXTURE, process=None, **options):
    return Sampler(network(data, process), solver, steps, driver=driver, **REFERENCE, **options)


def points(made):
    """Those of a sampler on VP, as oracles have them."""
    schedule = VPLinear()
    last = made.points[-1]
    ends = [schedule.clean() if last.sigma == 0 else schedule.point(last.t)]
    return [*(schedule.point(p.t) for p in made.points[:-1]), *ends]


def law(made, y):
    """Mean and covariance of the samples of a run that is affine in its normals, given a measurement: run
    without normals, and with each one alone."""
    plan = made.plan()
    rows, draws, shape = len(plan.rows), max(1, plan.normals), made.network.shape
    count = rows * draws * shape[0]
    noise = torch.zeros(rows, draws, count + 1, *shape, dtype=torch.float64)
    units = torch.eye(count, dtype=torch.float64).view(count, rows, draws, shape[0])
    noise[:, :, 1:] = units.permute(1, 2, 0, 3)
    ends = made.sample(
        count + 1, measurement=torch.from_numpy(y), noise=noise, batch_size=count + 1
    )
    ends = ends.samples.numpy()
    weights = ends[1:] - ends[0]
    return ends[0], weights.T @ weights
