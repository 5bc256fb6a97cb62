"""The fine solution against the ODE's own, where that has a closed form, and distances from it."""

import math

import pytest
import torch

from diffusion_engine import Sampler
from diffusion_engine.compare import Fine, distance, distances, fine_solution
from diffusion_engine.ops.philox import normals
from diffusion_engine.processes import EDM, VP, Discrete, FlowMatching
from diffusion_engine.testing import Gaussian, cld_mixture, labelled_mixture

F64 = {"dtype": torch.float64, "backend": "torch"}
PROCESSES = {"vp": VP(), "edm": EDM(), "flow": FlowMatching(), "table": Discrete.linear()}


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_it_solves_the_ode(process):
    """Of N(m, s^2) the ODE keeps (x - alpha m) / sqrt(alpha^2 s^2 + sigma^2)."""
    data = Gaussian(0.4, 0.3)
    network = data.network(process, (1,))
    made = fine_solution(network, range(2), fine=Fine.of(network, 80), end="t_min", **F64)
    grid = Fine.of(network, 80)
    first, *_, last = Sampler(network, "ddim", grid.steps, grid=grid.grid, end="t_min").points

    def spread(at):
        return math.hypot(at.alpha * data.std, at.sigma)

    z = normals(torch.arange(2), torch.zeros(2, dtype=torch.int32), 0, 1).double()
    kept = (z * process.prior_std(first) - first.alpha * data.mean) / spread(first)
    assert distance(made, last.alpha * data.mean + kept * spread(last)) < 1e-4


def test_what_makes_it():
    assert Fine.of(cld_mixture()).name == "cld_ode"
    table = Fine.of(labelled_mixture(Discrete.linear(40), label_dtype=torch.int64), 500)
    assert (table.grid, table.steps, str(table)) == ("linspace", 39, "dpmpp_3m in 39 steps")
    with pytest.raises(ValueError, match="fine_steps=0: steps of the fine solution, 1 or more"):
        Fine.of(cld_mixture(), 0)


def test_guided_and_with_conditions():
    network = labelled_mixture()
    how = {"guidance": 2.0, "interval": (0.1, 10.0), **F64}
    fine = Fine.of(network, 12)
    made = fine_solution(network, [3, 5], [0, 2], fine=fine, **how)
    again = Sampler(network, fine.name, 12, grid="lambda", **fine.options, **how)
    assert torch.equal(made, again.sample(seeds=[3, 5], condition=[0, 2]).samples)


def test_distances():
    fine = torch.zeros(2, 1, 2)
    samples = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]])
    assert distances(samples, fine).tolist() == [math.sqrt(12.5), 0.0]
    assert distance(samples, fine) == math.sqrt(6.25)
    with pytest.raises(ValueError, match="give those of the same seeds"):
        distances(samples, fine[:1])
