"""Networks with a closed form, as the engine sees them, on the processes of the oracles' grids."""

import affine
import numpy as np
import torch
from oracles import problems

from diffusion_engine import SOLVERS, ScoreNetwork
from diffusion_engine.processes import EDM, VE, VP, Discrete, FlowMatching, Point, SubVP, grids
from diffusion_engine.solvers.base import refuse_unsuited

PROCESSES = {
    "lam": VP(),
    "karras": VP(),
    "t": VP(),
    "edm": EDM(),
    "leading": Discrete.linear(),
    "trailing": Discrete.linear(),
    "linspace": Discrete.linear(),
}
BY_SCHEDULE = {
    "vp": VP(),
    "subvp": SubVP(),
    "ve": VE(),
    "edm": EDM(),
    "flow": FlowMatching(),
    "ddpm": Discrete.linear(),
    "sd": Discrete.scaled_linear(),
    "cosine": Discrete.cosine(),
}


def suited(process) -> list[str]:
    """The solvers that have nothing against a process and a plain network."""
    points, plain = grids.points(process, 4), ScoreNetwork(lambda x, t: x, process, (1,))
    return [n for n, kind in SOLVERS.items() if not against(kind(), points, plain)]


def against(solver, points, network) -> str | None:
    """Why a solver does not run this."""
    try:
        refuse_unsuited(solver, network.parameterisation, points)
    except ValueError as error:
        return str(error)
    return None


# CLD's solvers, and those that need more of a network than its prediction, have tests of their own.
SUITED = {*suited(VP()), *suited(Discrete.linear())}
OF_X = [name for name in SOLVERS if name in SUITED]


def points_of(points) -> list[Point]:
    return [Point(p.t, p.alpha, p.sigma) for p in points]


def propagated(sampler, variance=None):
    """Mean and variance of slot 0 at the end of a run on Gaussian data, exactly; from N(0, variance), or from
    what the sampler draws itself."""
    if variance is None:
        mean, spread = affine.end(sampler.plan(), sampler.network)
    else:
        given = np.array([[0.0, variance**0.5]])
        mean, spread = affine.end(sampler.plan(kind="state"), sampler.network, given)
    return float(mean[0]), float(spread[0, 0])


def network(problem: problems.TM, process, shape=(1,), prediction="x0", label="t") -> ScoreNetwork:
    """The exact denoiser of a problem, told its time, or with label="sigma" its level, in float64."""
    point = {"t": process.at, "sigma": process.at_ratio}[label]

    def module(x, told):
        rule = getattr(problem, "denoised" if prediction == "x0" else prediction)
        out = torch.empty_like(x, dtype=torch.float64)
        for t in told.unique():  # samples of one batch may be at different times
            here, at = told == t, point(float(t))
            out[here] = torch.from_numpy(rule(x[here].double().numpy(), at.alpha, at.sigma))
        return out.to(x.dtype)

    return ScoreNetwork(
        module,
        process,
        shape,
        prediction=prediction,
        label=label,
        label_dtype=torch.float64,
        name="analytic",
    )
