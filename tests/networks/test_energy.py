"""Networks made of an energy."""

import pytest
import torch
from mcmc_cases import gaussians

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.networks.energy import EnergyGradient, from_energy
from diffusion_engine.processes import VP
from diffusion_engine.testing import Gaussian


@pytest.mark.parametrize("scaled", [False, True])
def test_the_gradient_is_the_score(scaled):
    """Its samples are those of the closed form."""
    network = gaussians((0.3, 0.0), (0.5, 1.0), shape=(2, 3), scaled=scaled)
    made = Sampler(network, "dpmpp_2m", 8).sample(2, condition=0)
    exact = Sampler(Gaussian(0.3, 0.5).network(VP(), (2, 3)), "dpmpp_2m", 8).sample(2)
    assert (made.samples - exact.samples).abs().max() < 1e-5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_lie_as_the_input_and_the_block_sums_to_the_energy(layout):
    network = gaussians((0.3, 0.0), (0.5, 1.0), shape=(3, 4, 5))
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    t, y = torch.full((2,), 0.4, dtype=torch.float64), torch.tensor([0, 1])
    score, block = network(x, t, y)
    assert score.stride() == block.stride() == x.stride()
    energy = network.module.energy(x, t, y)
    assert torch.equal(block.sum((1, 2, 3)), energy.float())
    assert not score.requires_grad and not block.requires_grad


def test_a_module_has_its_weights_in_the_network():
    """0.5 ||f||^2 of a linear f: its gradient is W^T (W x)."""

    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.f = torch.nn.Linear(3, 3, bias=False)

        def forward(self, x, t):
            return 0.5 * self.f(x).square().sum(1)

    half = Half()
    network = from_energy(half, VP(), (3,), scaled=True)
    assert len(list(network.module.parameters())) == 1
    x, weight = torch.randn(2, 3), half.f.weight.detach()
    eps, _ = network(x, torch.zeros(2), None)
    assert torch.allclose(eps, x @ weight.T @ weight, atol=1e-6)


def test_log_density_weights():
    at = VP().at(0.5)
    assert EnergyGradient().log_density(at) == -1.0
    assert EnergyGradient(scaled=True).log_density(at) == -1.0 / at.sigma
    network = ScoreNetwork(lambda x, t: (x, x), VP(), (1,), prediction=EnergyGradient())
    assert network.parameterisation.rule == EnergyGradient()  # a module that returns both itself


@pytest.mark.parametrize(
    ("energy", "said"),
    [
        (
            lambda x, t: x.square(),
            r"returned \[2, 1\] for 2 samples; it returns one number for each",
        ),
        (lambda x, t: 1.0, "returned float for 2 samples"),
        (lambda x, t: x.detach().sum(1), "has no derivative with respect to x"),
    ],
    ids=["shape", "number", "detached"],
)
def test_energies_that_are_none(energy, said):
    with pytest.raises(ValueError, match=said):
        Sampler(from_energy(energy, VP(), (1,)), "ddim", 2).sample(2)


def test_bad_arguments():
    with pytest.raises(ValueError, match="energy=3: give a function"):
        from_energy(3, VP(), (1,))
    with pytest.raises(ValueError, match="takes no prediction, scale"):
        from_energy(torch.sum, VP(), (1,), prediction="eps", scale="sigma")
    with pytest.raises(ValueError, match="scaled='yes': give True or False"):
        from_energy(torch.sum, VP(), (1,), scaled="yes")
