"""Networks with a closed form, as the engine sees them, on the processes of the oracles' grids."""

import torch
from oracles import problems

from diffusion_engine import SOLVERS, ScoreNetwork
from diffusion_engine.processes import EDM, VE, VP, Discrete, FlowMatching, Point, SubVP

PROCESSES = {
    "lam": VP(),
    "karras": VP(),
    "t": VP(),
    "edm": EDM(),
    "leading": Discrete.linear(),
    "trailing": Discrete.linear(),
    "linspace": Discrete.linear(),
}
OF_X = [name for name, kind in SOLVERS.items() if kind.blocks == 1]  # CLD's have tests of their own
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


def points_of(points) -> list[Point]:
    return [Point(p.t, p.alpha, p.sigma) for p in points]


def network(problem: problems.TM, process, shape=(1,), prediction="x0") -> ScoreNetwork:
    """The exact denoiser of a problem, told its time in float64."""

    def module(x, label):
        rule = getattr(problem, "denoised" if prediction == "x0" else prediction)
        out = torch.empty_like(x, dtype=torch.float64)
        for t in label.unique():  # samples of one batch may be at different times
            here, at = label == t, process.at(float(t))
            out[here] = torch.from_numpy(rule(x[here].double().numpy(), at.alpha, at.sigma))
        return out.to(x.dtype)

    return ScoreNetwork(
        module, process, shape, prediction=prediction, label_dtype=torch.float64, name="analytic"
    )
