"""Plans of CLD run on Gaussian data, where they are linear maps: exact means and covariances."""

import numpy as np
from oracles.cld import Law

from diffusion_engine import SOLVERS, ScoreNetwork, grids
from diffusion_engine.linearize import linearized
from diffusion_engine.plan import Plan
from diffusion_engine.prediction import Velocity
from diffusion_engine.processes import CLD
from diffusion_engine.solvers import solver

TC = CLD(numerical_eps=0.0)  # with data N(0, 1/4)
VARYING = CLD(beta0=0.1, beta1=6.9)
DATA = 0.25
OF_CLD = [name for name, kind in SOLVERS.items() if kind.blocks == 2]


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
    return solver(name, **how).plan(process, points, network, start)


def maps(made: Plan, process=TC, prediction=None):
    """Of every row: the matrix of the slots with the exact network in it, that of the normals."""
    powers = (max(len(row.e) for row in made.rows) - 1) // 2
    prediction = prediction or Velocity(mixed=True, powers=powers)
    for row in made.rows:
        matrix, noise, output = np.eye(5), np.zeros((5, 2)), np.zeros(5)
        if row.call is not None:
            output = raw(row, process, prediction)
        for k, update in row.new.items():
            matrix[k] = 0.0
            for symbol, weight in update:
                if symbol == "raw":
                    matrix[k] += weight * output
                elif symbol[0] == "S":
                    matrix[k, int(symbol[1:])] += weight
                else:
                    noise[k, int(symbol[1:])] += weight
        yield matrix, noise


def raw(row, process, prediction) -> np.ndarray:
    """`raw` of a row as weights of the slots."""
    on_v, on_output = prediction.score(process, row.call.at.t)
    k = slope(process, row.call.at.t)
    at_x, at_v = np.eye(5)[list(row.call.read)]
    output = (k[0] * at_x + (k[1] - on_v) * at_v) / on_output
    blocks, pair = [output], [at_v, output]
    for _ in range(prediction.powers):
        pair = [(k[1] - on_v) / on_output * part for part in pair]
        blocks += pair
    return sum(e * block for e, block in zip(row.e, blocks, strict=True))


def covariance(made: Plan, process=TC, prediction=None, first=None) -> np.ndarray:
    """Of all slots after the last row; `first` is what row 0 leaves in x and v, its own when None."""
    spread = np.zeros((5, 5))
    for i, (matrix, noise) in enumerate(maps(made, process, prediction)):
        spread = matrix @ spread @ matrix.T + noise @ noise.T
        if i == 0 and first is not None:
            spread[:2, :2] = first
    return spread


def moved(made: Plan, u, rows: slice, process=TC) -> np.ndarray:
    """(x, v) after these rows without noise, from u."""
    state = np.array([*u, 0.0, 0.0, 0.0])
    for matrix, _ in list(maps(made, process))[rows]:
        state = matrix @ state
    return state[:2]
