"""Sliced score matching against Gaussian data, whose score is known."""

import math

import pytest
import torch

from diffusion_engine import ScoreNetwork
from diffusion_engine.processes import VP, FlowMatching
from diffusion_engine.processes.levels import Levels, per_sample
from diffusion_engine.training import Trainer, read
from diffusion_engine.training.data import Batch
from diffusion_engine.training.objectives.denoising import denoising
from diffusion_engine.training.objectives.sliced import sliced

T = 0.4
MU = torch.tensor([0.5, -0.3, 0.2])


class Linear(torch.nn.Module):
    """eps = x W^T + b, at one time."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3, 3, dtype=dtype))
        self.bias = torch.nn.Parameter(torch.zeros(3, dtype=dtype))

    def forward(self, x, t):
        return x @ self.weight.T + self.bias


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def data(n, seed=0):
    """N(MU, A A^T) of 3 correlated elements."""
    a = torch.tensor([[0.8, 0.0, 0.0], [0.3, 0.5, 0.0], [-0.2, 0.1, 0.4]], dtype=torch.float64)
    x0 = MU + torch.randn(n, 3, dtype=torch.float64, generator=seeded(seed)) @ a.T
    return Batch(x0, torch.zeros(n, dtype=torch.int64)), a @ a.T


def one_time(module, prediction="eps"):
    """A network of a process that has, about, one time."""
    return ScoreNetwork(module, VP(t_min=T, t_max=T + 1e-9), (3,), prediction=prediction)


@pytest.mark.parametrize("options", [{}, {"reduced": False}, {"law": "normal"}], ids=str)
def test_the_best_linear_score_is_the_exact_one(options):
    """eps = sigma (alpha^2 C + sigma^2)^-1 (x - alpha mu): where the gradient of the loss is 0."""
    batch, covariance = data(40000)
    at = Levels.of(VP(), torch.tensor([T], dtype=torch.float64))
    alpha, sigma = float(at.alpha), float(at.sigma)
    module = Linear()
    gain = sigma * torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(3))
    with torch.no_grad():
        module.weight.copy_(gain)
        module.bias.copy_(-alpha * gain @ MU.double())
    sliced(one_time(module), batch, seeded(1), **options).backward()
    exact = torch.cat((module.weight.grad.flatten(), module.bias.grad))
    module.zero_grad()
    with torch.no_grad():
        module.weight.mul_(1.2)
    sliced(one_time(module), batch, seeded(1), **options).backward()
    assert exact.abs().max() < 0.02 < 0.1 < module.weight.grad.abs().max()


@pytest.mark.parametrize("reduced", [True, False])
def test_its_gradient_is_that_of_denoising_score_matching(reduced):
    """In expectation: the means of 64 batches agree within 4 standard errors, at a network that is wrong."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    ).double()
    network = ScoreNetwork(lambda x, t: module(x), FlowMatching(), (3,), prediction="flow")
    law = {"name": "logit_normal", "mean": 0.0, "std": 0.5}

    def gradients(loss):
        found = []
        for seed in range(64):
            module.zero_grad()
            loss(network, data(512, seed + 1000)[0], seeded(seed)).backward()
            found.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
        return torch.stack(found)

    def weighted(network, batch, generator):
        """Of eps: the error of eps is alpha times that of eps - x0."""
        t = law_times(len(batch.x0), generator)
        at, noise = Levels.of(network.process, t), torch.randn(batch.x0.shape, generator=generator)
        x = per_sample(at.alpha, batch.x0) * batch.x0 + per_sample(at.sigma, batch.x0) * noise
        eps = x + per_sample(at.alpha, x) * network(x, t, None)[0]
        return (eps - noise).square().mean()

    def law_times(n, generator):
        return torch.sigmoid(0.5 * torch.randn(n, dtype=torch.float64, generator=generator))

    ours = gradients(lambda *given: sliced(*given, reduced=reduced, times=law))
    theirs = gradients(weighted)
    error = torch.sqrt((ours.var(dim=0) + theirs.var(dim=0)) / 64)
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 4 * error).all()
    assert theirs.mean(dim=0).abs().max() > 10 * error.max()


def test_its_value_is_the_loss_of_denoising_less_a_constant():
    """The noise has a mean square of 1, which it does not count."""
    batch, _ = data(40000)
    module = Linear()
    torch.nn.init.constant_(module.weight, 0.3)
    network = one_time(module)
    found, other = (loss(network, batch, seeded(2)) for loss in (sliced, denoising))
    assert found.item() + 1.0 == pytest.approx(other.item(), abs=4 * 3 / math.sqrt(40000))


def test_it_trains_the_unet(tmp_path):
    """Through its attention, whose fused kernels have no second derivative."""
    recipe = read("flow")
    tiny = {"name": "unet", "channels": [8, 8, 32], "emb": 16, "fastest": 100.0}
    recipe = read(
        "flow", steps=30, batch=8, warm_up=5, lr=0.01, objective={"name": "sliced"},
        card=recipe.card | {"architecture": tiny},
    )  # fmt: skip
    trainer = Trainer(recipe)
    trainer.advance()
    first = trainer.sums[0]
    trainer.run(tmp_path)
    assert trainer.rows[-1]["loss"] < first - 0.1


@pytest.mark.parametrize(
    "network, options, message",
    [
        (lambda m: one_time(m), {"law": "uniform"}, "law='uniform'"),
        (
            lambda m: ScoreNetwork(m, VP(), (3,), prediction="x0", latent=4),
            {},
            "reads a latent",
        ),
    ],
)
def test_what_it_does_not_take(network, options, message):
    with pytest.raises(ValueError, match=message):
        sliced(network(Linear()), data(4)[0], seeded(), **options)
