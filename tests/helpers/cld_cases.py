"""Plans of CLD run on Gaussian data, where they are linear maps: exact means and covariances."""

from dataclasses import replace

import affine
import numpy as np
import torch
from oracles.cld import Law

from diffusion_engine import SOLVERS, ScoreNetwork
from diffusion_engine.networks.linearize import linearized
from diffusion_engine.networks.prediction import Velocity
from diffusion_engine.plan import Plan
from diffusion_engine.plan.linear import slot
from diffusion_engine.processes import CLD, grids
from diffusion_engine.solvers import solver
from diffusion_engine.testing import cld_gaussian

TC = CLD(numerical_eps=0.0)  # with data N(0, 1/4)
VARYING = CLD(beta0=0.1, beta1=6.9)
DATA = 0.25
OF_CLD = [name for name, kind in SOLVERS.items() if kind.parts == 2]


def law(process: CLD) -> Law:
    """The process as the oracles know it."""
    return Law(process.mass, process.gamma, process.beta0, process.beta1, process.numerical_eps)


def suited(name: str, network: ScoreNetwork) -> ScoreNetwork:
    """The network in the form that a solver needs."""
    return linearized(network) if name == "sscs_exact" else network


def elementwise(u, label):
    """A network of [x, v] whose bits are independent of the batch."""
    x, v = u.chunk(2, dim=1)
    return 0.3 * x - 0.2 * v.abs() - 0.05 * label.view(-1, *[1] * (u.ndim - 1))


def target(process: CLD, t: float) -> np.ndarray:
    """The covariance of (x, v) at t."""
    mean = np.array(process.mean(t))
    return process.covariance(t).matrix + DATA * np.outer(mean, mean)


def slope(process: CLD, t: float) -> np.ndarray:
    """K with score of the velocity = K (x, v)."""
    return -np.linalg.inv(target(process, t))[1]


def plan(
    name: str, times, process=TC, prediction=None, grid="quadratic_striding", end="t_min", **how
) -> Plan:
    """The plan of a solver over so many steps, or the times given."""
    prediction = prediction or Velocity(mixed=True, powers=3 if name == "sscs_exact" else 0)
    network = ScoreNetwork(lambda u, t: u, process, (1,), prediction=prediction)
    if isinstance(times, int):
        points = grids.points(process, times, grid, end)
    else:
        points = grids.from_times(process, times)
    start = how.pop("start", "prior")
    return solver(name, **how).plan(network.parameterisation, points, start)


def exact(made: Plan, process=TC) -> ScoreNetwork:
    """The exact network of the data, with as many outputs as a plan takes."""
    network = cld_gaussian(process=process)
    powers = (max(len(row.e) for row in made.rows) - 1) // 2
    if not powers:
        return network

    def with_slope(u, label):
        """The output and do/dv, which no state changes: without differentiation, for thousands of rows."""
        x, v = u.chunk(2, dim=1)
        still, moved = (
            network.module(torch.cat([x, w], dim=1), label)
            for w in (torch.zeros_like(v), torch.ones_like(v))
        )
        return torch.cat([still + (moved - still) * v, moved - still], dim=1)

    return linearized(network.with_module(with_slope), powers, elementwise=True)


def maps(made: Plan, process=TC) -> list[affine.Map]:
    """Of every row, with the exact network in it."""
    return list(affine.maps(made, exact(made, process)))


def covariance(made: Plan, process=TC, first=None) -> np.ndarray:
    """Of all slots after the last row; `first` is what row 0 leaves in x and v, its own when None."""
    given = None
    if first is not None:
        given = np.pad(np.linalg.cholesky(first), ((0, 0), (1, 0)))
        start = replace(made.rows[0], new={0: slot(0), 1: slot(1)})
        made = made.replace_rows([start, *made.rows[1:]])
    return affine.end(made, exact(made, process), given)[1]


def moved(made: Plan, u, rows: slice, process=TC) -> np.ndarray:
    """(x, v) after these rows without noise, from u."""
    state = np.pad(u, (0, made.slots - 2))
    for step in maps(made, process)[rows]:
        state = step.matrix @ state
    return state[:2]
