"""Several networks as one."""

import pytest
import torch
from mcmc_cases import gaussians, mcmc

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.networks.joined import joined
from diffusion_engine.processes import EDM, VP
from diffusion_engine.testing import Gaussian, labelled_mixture

FIRST, SECOND = Gaussian(0.0, 1.0).network(VP(), (2, 3)), Gaussian(1.0, 1.0).network(VP(), (2, 3))


def test_each_condition_is_a_network():
    both = joined([FIRST, SECOND])
    assert (both.name, both.classes) == ("gaussian+gaussian", 2)
    made = Sampler(both, "dpmpp_2m", 6).sample(condition=[0, 1, 0], seed=4)
    for i, network in enumerate((FIRST, SECOND, FIRST)):
        own = Sampler(network, "dpmpp_2m", 6).sample(1, seed=4 + i)
        assert torch.equal(made.samples[i], own.samples[0])


def test_entries_of_one_call_have_their_own_times():
    both, x = joined([FIRST, SECOND]), torch.randn(4, 2, 3)
    label, which = torch.linspace(0.2, 1.3, 4, dtype=torch.float64), torch.tensor([1, 0, 1, 0])
    (made,) = both(x, label, which)
    for i, network in enumerate((SECOND, FIRST, SECOND, FIRST)):
        assert torch.equal(made[i], network(x[i : i + 1], label[i : i + 1], None)[0][0])


def test_a_product_is_the_sum_of_scores_without_any_driver():
    """As of one network with both as conditions; and each entry is one call of one network."""
    calls = []

    def counted(network):
        def module(x, label):
            calls.append(len(x))
            return network.module(x, label)

        return network.with_module(module)

    both = joined([counted(FIRST), counted(SECOND)], name="pair")
    product = [(0, 1.0), (1, 0.5)]
    made = Sampler(both, "ddim", 5).sample(2, compose=product)
    assert sum(calls) == made.evaluations == 2 * 2 * made.nfe
    one = gaussians((0.0, 1.0), (1.0, 1.0), shape=(2, 3))
    other = Sampler(one, "ddim", 5).sample(2, compose=product)
    assert (made.samples - other.samples).abs().max() < 1e-4
    assert torch.equal(Sampler.replay(both, made.recipe).samples, made.samples)


def test_networks_with_energies_and_with_chains():
    parts = [gaussians((mean,), (1.0,), shape=(2, 3)) for mean in (0.0, 1.0)]
    energies = [part.with_module(Alone(part.module), classes=None) for part in parts]
    led = mcmc(sampler="hmc", steps=2, step=0.5)
    made = Sampler(joined(energies), "ddpm", 4, driver=led).sample(2, compose=[(0, 1.0), (1, 1.0)])
    one = Sampler(gaussians(shape=(2, 3)), "ddpm", 4, driver=led)
    other = one.sample(2, compose=[(0, 1.0), (1, 1.0)])
    assert (made.samples - other.samples).abs().max() < 1e-4
    assert made.reports == other.reports


class Alone(torch.nn.Module):
    """A network of one class that is told none."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x, label):
        return self.module(x, label, torch.zeros(len(x), dtype=torch.int64))


def test_networks_with_conditions_of_their_own():
    parts = [labelled_mixture(), labelled_mixture(means=(-1.0, 0.0, 1.0))]
    both = joined(parts)
    assert both.classes is None
    condition = {"network": torch.tensor([1, 0]), "": torch.tensor([2, 1])}
    made = Sampler(both, "ddim", 5).sample(condition=condition)
    for i, (network, y) in enumerate(((parts[1], 2), (parts[0], 1))):
        own = Sampler(network, "ddim", 5).sample(seeds=[i], condition=y)
        assert torch.equal(made.samples[i], own.samples[0])


def test_weights_are_those_of_the_parts():
    modules = [torch.nn.Linear(3, 3) for _ in range(2)]
    parts = [ScoreNetwork(Told(module), VP(), (3,)) for module in modules]
    both = joined(parts)
    assert {id(p) for p in both.module.parameters()} == {
        id(p) for module in modules for p in module.parameters()
    }


class Told(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x, label):
        return self.module(x)


def test_what_does_not_go_together():
    with pytest.raises(ValueError, match="give two ScoreNetworks or more"):
        joined([FIRST])
    with pytest.raises(ValueError, match="give two ScoreNetworks or more"):
        joined([FIRST, FIRST.module])
    with pytest.raises(ValueError, match="networks 0 and 1 differ in process"):
        joined([FIRST, Gaussian().network(EDM(), (2, 3))])
    with pytest.raises(ValueError, match="differ in prediction, shape"):
        joined([FIRST, Gaussian().network(VP(), (1,), prediction="eps")])
    with pytest.raises(ValueError, match="joined networks are told which"):
        Sampler(joined([FIRST, SECOND]), "ddim", 3).sample(2)


def test_a_number_of_no_network_is_not_finite():
    both = joined([labelled_mixture(), labelled_mixture()])
    condition = {"network": torch.tensor([0, 5]), "": torch.tensor([0, 0])}
    with pytest.warns(RuntimeWarning):
        made = Sampler(both, "ddim", 3).sample(condition=condition)
    assert made.finite == [True, False]
