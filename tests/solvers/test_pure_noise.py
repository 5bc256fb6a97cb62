"""Runs from pure noise, where alpha is 0 and lam infinite, past the depth of every history."""

import pytest
import torch
from analytic import suited

from diffusion_engine import SOLVERS, Sampler, ScoreNetwork
from diffusion_engine.processes import Discrete, FlowMatching
from diffusion_engine.solvers import solver
from diffusion_engine.testing import Gaussian

ZERO_SNR = Discrete.scaled_linear().zero_terminal_snr()
PROCESSES = {"flow": FlowMatching(), "zero snr": ZERO_SNR}
STEPS = 7  # the longest history has 4 predictions
F64 = {"dtype": torch.float64, "backend": "torch"}
processes = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def known(process, x0=0.3):
    """A network that knows x0."""
    return ScoreNetwork(lambda x, label: torch.full_like(x, x0), process, (1,), prediction="x0")


@processes
@pytest.mark.parametrize("name", list(SOLVERS))
def test_solvers_that_start_from_pure_noise(name, process):
    if name not in suited(process):
        with pytest.raises(ValueError, match=f"solver '{name}' cannot run this: "):
            Sampler(known(process), name, STEPS)
        return
    sampler = Sampler(known(process), name, STEPS)
    assert sampler.points[0].alpha == 0.0
    made = sampler.sample(3)
    assert made.finite == [True] * 3
    if sampler.plan().exact:
        assert torch.allclose(made.samples, torch.tensor(0.3), rtol=0, atol=1e-6)


OF_THE_ODE = [n for n in suited(FlowMatching()) if solver(n).exact and not solver(n).stochastic]


@pytest.mark.parametrize("name", OF_THE_ODE)
def test_the_ode_from_pure_noise(name):
    """It takes z to 0.3 + 0.5 z on N(0.3, 0.25): the error falls with the steps."""
    network = Gaussian(0.3, 0.5).network(FlowMatching(), (2,))
    z = torch.tensor([[-1.3, 0.7]], dtype=torch.float64)
    errors = []
    for steps in (2 * STEPS, 8 * STEPS):
        made = Sampler(network, name, steps, **F64).sample(x=z, noised=True).samples
        errors.append(float((made - (0.3 + 0.5 * z)).abs().max()))
    assert errors[1] < errors[0] / 3.0


@processes
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["euler_ancestral", "ddim"])
def test_fresh_noise_of_the_first_step(name, eta, process):
    """eta sigma_t of it, none where eta is 0; what is left of sigma_t is the old noise's."""
    plan = Sampler(known(process), name, STEPS, eta=eta).plan()
    row, after = plan.rows[1], plan.rows[1].state
    assert row.call.at.alpha == 0.0
    assert row.new[0]["z0"] == pytest.approx(eta * after.sigma, rel=1e-12)
    assert (row.new[0]["S0"] * row.call.at.sigma) ** 2 == pytest.approx(
        (1.0 - eta**2) * after.sigma**2, rel=1e-12
    )
    assert any(row.draws(0) for row in plan.rows[1:]) == (eta > 0.0)
