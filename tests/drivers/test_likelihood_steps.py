"""Likelihoods along the engine's own steps: the quadrature of a plan, and its order."""

import math

import numpy as np
import pytest
import torch
from optional import needs

from diffusion_engine import likelihood
from diffusion_engine.drivers.likelihood_paths import scale, share
from diffusion_engine.drivers.likelihood_steps import weights
from diffusion_engine.processes import VP, Discrete, FlowMatching, grids
from diffusion_engine.solvers import solver
from diffusion_engine.solvers.inverse import encoding
from diffusion_engine.testing import Gaussian, Mixture

needs("torchdiffeq")

F64 = torch.float64
X = torch.tensor([[0.7]], dtype=F64)
# Of the solvers the order that the estimate of log p shows, from 80 to 160 steps of the default grid.
ORDERS = {
    "ddim": 1, "euler": 1, "heun": 2, "dpm_solver_2": 2, "dpm_solver_3": 3, "dpmpp_2m": 2, "unipc": 2,
    "deis": 2,
}  # fmt: skip


def plan_of(name, process, steps, **options):
    rule = solver(name, **options)
    points = grids.points(process, steps, None, "t_min")
    network = Mixture().network(process).parameterisation
    return encoding(rule, points, network, process.t_min, None, 0)


@pytest.mark.parametrize(
    ("name", "process"),
    [(name, VP()) for name in (*ORDERS, "dpmpp_3m", "lms", "ipndm", "flow_heun")]
    + [("ddim", FlowMatching()), ("heun", FlowMatching()), ("flow_heun", FlowMatching())],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_weights_are_exact_on_straight_lines(name, process):
    """Of a network that knows x0 and eps, every row ends on z = x0 + u U with U = eps - x0: with x0 = 0 and
    eps = 1 that is z = u, so that the weights have to sum to what u rises by."""
    plan = plan_of(name, process, 7)
    made = weights(plan)
    rise = share(plan.rows[-1].state) - share(plan.rows[0].state)
    assert made.shape == (plan.nfe,)
    assert made.sum() == pytest.approx(rise, rel=1e-9)  # 'lms' integrates its own to 1e-10


def test_one_step_of_ddim_is_eulers_of_the_flow():
    """One call: dz/du = U at the start, whatever the process."""
    for process in (VP(), FlowMatching()):
        plan = plan_of("ddim", process, 1)
        step = share(plan.rows[-1].state) - share(plan.rows[0].state)
        assert weights(plan).tolist() == pytest.approx([step])


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_of_log_p(name):
    """Against dopri5 at 1e-9, in float64, at an x where no error of 40 steps or more changes its sign."""
    network, x = Mixture().network(VP()), torch.tensor([[0.95]], dtype=F64)
    how = {"dtype": F64, "exact": True, "t_min": 1e-3}
    true = likelihood(network, x, rtol=1e-9, atol=1e-9, **how).log_p.item()
    errors = []
    for steps in (80, 160):
        made = likelihood(network, x, solver=name, steps=steps, **how)
        errors.append(abs(made.log_p.item() - true))
        assert made.nfe == (steps * solver(name).calls,)
    assert math.log2(errors[0] / errors[1]) > ORDERS[name] - 0.1, errors


@pytest.mark.parametrize("name", ["ddim", "heun", "flow_heun"])
def test_up_to_pure_noise(name):
    """Flow matching ends at alpha = 0, where no x / alpha is."""
    network = Mixture().network(FlowMatching())
    how = {"dtype": F64, "exact": True}
    true = likelihood(network, X, rtol=1e-8, atol=1e-8, **how)
    made = [
        likelihood(network, X, solver=name, steps=n, **how).log_p.item() - true.log_p.item()
        for n in (60, 120)
    ]
    assert abs(made[1]) < 0.01 and abs(made[0] / made[1]) > (1.8 if name == "ddim" else 3.0)


def test_a_table_of_timesteps_whose_labels_are_whole():
    """DDPM's: its grid's times are timesteps, the last noise has alpha = 0."""
    process = Discrete.linear().zero_terminal_snr()
    network = Gaussian().network(process, prediction="x0")
    made = [
        likelihood(network, X, solver="ddim", steps=n, dtype=F64, exact=True).log_p.item()
        for n in (50, 100, 200)
    ]
    changes = np.abs(np.diff(made))
    assert changes[1] < 0.7 * changes[0] and changes[1] < 0.02


def test_unclipped_eps_has_the_weights_of_its_row():
    plain = likelihood(Mixture().network(VP()), X, solver="ddim", steps=9, dtype=F64)
    other = likelihood(
        Mixture().network(VP()), X, solver="ddim", steps=9, dtype=F64, clipped_eps=False
    )
    assert other.log_p.item() == pytest.approx(plain.log_p.item(), abs=1e-9)


def test_scales_of_the_path():
    at = VP().at(0.4)
    assert scale(at) == at.alpha + at.sigma and share(at) == at.sigma / scale(at)
