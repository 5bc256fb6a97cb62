"""What an oracle fulfils: it keeps a known x0; and its end on the mixture."""

import inspect

import numpy as np
import pytest
from oracles import problems
from oracles.problems import TM
from oracles.solvers import oracle, sample


def tm_end(solver, options, grid, n, x_T):
    schedule, points = problems.grid(grid, n)
    return float(sample(solver, TM.denoiser, schedule, points, np.array(x_T), **options))


def samples_a_point_mass_exactly(name, options):
    """With x0 known, x = alpha x0 + sigma eps is every deterministic solver's invariant."""
    schedule, points = problems.grid("lam", 7)
    takes = inspect.signature(oracle(name)).parameters
    options = options | {key: 0.0 for key in ("eta", "s_churn") if key in takes}
    first, last = points[0], points[-1]
    drawn = []

    def silence(step, stage):
        drawn.append(step)
        return 0.0

    def end(eps):
        x = first.alpha * 0.4 + first.sigma * eps
        return sample(name, lambda x, p: 0 * x + 0.4, schedule, points, x, silence, **options)

    assert end(np.zeros(2)) == pytest.approx(last.alpha * 0.4, abs=1e-12)
    if not drawn:  # where noise is part of the method, without it only x0 is kept
        eps = np.array([-1.2, 0.3])
        assert end(eps) == pytest.approx(last.alpha * 0.4 + last.sigma * eps, abs=1e-12)
