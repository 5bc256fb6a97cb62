"""What a likelihood cannot be: a sentence each, before anything is measured."""

import sys

import pytest
import torch
from optional import needs
from torch import nn

from diffusion_engine import ScoreNetwork, likelihood, with_classifier
from diffusion_engine.drivers import likelihood_dopri5
from diffusion_engine.genie import exact_derivative
from diffusion_engine.processes import VP, Discrete
from diffusion_engine.testing import (
    Gaussian,
    Mixture,
    cld_gaussian,
    exact_network,
    labelled_mixture,
)

needs("torchdiffeq")

X = torch.zeros(2, 3)
NETWORK = Mixture().network(VP(), (3,))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"rtol": 0.0}, r"rtol=0: a tolerance is above 0"),
        ({"atol": -1e-5}, r"atol=-1e-05: a tolerance is above 0"),
        ({"solver": "dpmpp_2m_sde"}, "adds fresh noise"),
        ({"solver": "ddim", "eta": 0.5}, "adds fresh noise"),
        ({"guidance": 2.0}, r"guidance=2\.0: a guided ODE follows no density"),
        ({"solver": "ddim", "classifier_scale": 1.0}, "a guided ODE follows no density"),
        ({"probes": 0}, "1 probe or more"),
        ({"probe": "uniform"}, "choose rademacher, gaussian"),
        ({"exact": 1}, "give True or False"),
        ({"range": (1.0, -1.0)}, "where pixels lie"),
        ({"range": None, "dequantise": True}, "give their range="),
        ({"t_min": 0.0}, "with noise"),
        ({"t_min": 2.0}, "t_min=2"),
        ({"steps": 3}, "dopri5 chooses its own"),
        ({"eta": 0.5}, "dopri5 takes no eta"),
        ({"solver": "dopri"}, "dopri"),
        ({"solver": "ddim", "condition": 1, "seeds": [1]}, "x has shape"),
    ],
)
def test_options(how, said):
    with pytest.raises(ValueError, match=said):
        likelihood(NETWORK, X, **how)


def test_data_of_another_shape():
    with pytest.raises(ValueError, match=r"x has shape \[2, 4\]"):
        likelihood(NETWORK, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="draws their velocities itself"):
        likelihood(cld_gaussian(shape=(2,)), torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"x goes from -3 to 0.*range"):
        likelihood(NETWORK, torch.tensor([[0.0, -3.0, 0.0]]), dequantise=True)
    with pytest.raises(ValueError, match="NaN or infinity"):
        likelihood(NETWORK, torch.tensor([[0.0, float("nan"), 0.0]]))


def test_an_exact_divergence_of_a_large_shape():
    network = Gaussian().network(VP(), (3, 32, 32))
    with pytest.raises(ValueError, match="3072 of a sample"):
        likelihood(network, torch.zeros(1, 3, 32, 32), exact=True)


class Detached(nn.Module):
    def forward(self, x, label):
        return 0.5 * x.detach()


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x, label):
        return self.weight * torch.zeros_like(x)


class Infinite(nn.Module):
    def forward(self, x, label):
        return x / 0.0


@pytest.mark.parametrize("solver", ["dopri5", "dpmpp_2m"])
@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Detached(), "no derivative in its input: it detaches"),
        (Constant(), "no derivative in its input: it does not depend on it"),
        (Infinite(), "not finite"),
    ],
)
def test_networks_that_no_divergence_is_taken_of(module, said, solver):
    with pytest.raises(ValueError, match=said):
        likelihood(ScoreNetwork(module, VP(), (3,)), X, solver=solver)


def test_networks_without_a_density():
    labelled = labelled_mixture(shape=(3,))
    classified = with_classifier(labelled, labelled.module.classifier)
    for network in (
        classified,
        exact_network("ddgan", (3,)),
        exact_derivative(labelled, guidance=2.0),
    ):
        with pytest.raises(ValueError, match="its ODE follows no density"):
            likelihood(network, X)
    with pytest.raises(ValueError, match="wrap the module in ScoreNetwork"):
        likelihood(Detached(), X)


def test_solvers_that_move_by_more_than_x0():
    with pytest.raises(ValueError, match="more than one estimate of x0 a call"):
        likelihood(exact_derivative(labelled_mixture(shape=(3,))), X, solver="genie")
    with pytest.raises(ValueError, match=r"followed by solver='dopri5' alone"):
        likelihood(cld_gaussian(shape=(3,)), X, solver="cld_ode")


def test_whole_labels_have_no_steps_of_any_size():
    network = ScoreNetwork(Detached(), Discrete.linear(), (3,), label_dtype=torch.int64)
    with pytest.raises(ValueError, match="takes whole labels"):
        likelihood(network, X)


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ValueError, match=r"pip install 'diffusion-engine\[likelihood\]'"):
        likelihood(NETWORK, X)
    assert len(likelihood(NETWORK, X, solver="ddim", steps=2).log_p) == 2


def test_tolerances_below_the_rounding(monkeypatch):
    monkeypatch.setattr(likelihood_dopri5, "STEPS", 20)
    with pytest.raises(ValueError, match="came to no end with rtol=1e-30"):
        likelihood(NETWORK, X[:1], rtol=1e-30, atol=1e-30)
