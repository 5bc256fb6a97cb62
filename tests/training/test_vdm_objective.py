"""VDM's bound against the closed forms of Gaussian data, and its learned schedule."""

import math

import numpy as np
import pytest
import torch

from diffusion_engine import ScoreNetwork
from diffusion_engine.processes import VDM, VP
from diffusion_engine.training.data import Batch
from diffusion_engine.training.objectives.vdm import bound, follow_variance, prior, reconstruction
from diffusion_engine.zoo.vdm import LearnedGamma

LOW, HIGH, VARIANCE = -8.0, 3.0, 0.09


class Exact(torch.nn.Module):
    """eps of data N(0, VARIANCE), and a schedule that is bent at random."""

    def __init__(self, seed=None, error=0.0):
        super().__init__()
        self.error = error
        if seed is not None:
            torch.manual_seed(seed)
            self.gamma = LearnedGamma(hidden=32).double()
            with torch.no_grad():
                self.gamma.ends.copy_(torch.tensor([LOW, HIGH]))
                self.gamma.shape.l2.weight.mul_(20.0)
                self.gamma.shape.l3.weight.mul_(100.0)

    def forward(self, z, gamma):
        snr, sigma = (-gamma).exp()[:, None, None, None], gamma.sigmoid().sqrt()
        return z / sigma[:, None, None, None] / (VARIANCE * snr + 1.0) + self.error


def network(module):
    return ScoreNetwork(
        module, VDM.linear(LOW, HIGH), (1, 16, 16), label="gamma", label_dtype=torch.float64
    )


def loss(module, n=512, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0 = math.sqrt(VARIANCE) * torch.randn((n, 1, 16, 16), generator=generator, dtype=torch.float64)
    return bound(network(module), Batch(x0, torch.zeros(n, dtype=torch.int64)), generator)


def number(*of, **options):
    return float(loss(*of, **options).detach())


def known():
    """Reconstruction by quadrature, prior and diffusion in closed form, in bits/dim."""
    noise, weight = np.polynomial.hermite_e.hermegauss(80)
    g = math.exp(0.5 * LOW)
    steps = np.arange(-200, 201) / 128.0
    every = np.exp(-0.5 * (noise[:, None] - steps / g) ** 2).sum(axis=1)
    pixels = (weight * (np.log(every) + 0.5 * noise**2)).sum() / weight.sum()
    share = 1.0 / (1.0 + math.exp(-HIGH))
    last = 0.5 * ((1.0 - share) * VARIANCE + share - math.log(share) - 1.0)
    between = 0.5 * math.log((1.0 + VARIANCE * math.exp(-LOW)) / (1.0 + VARIANCE * math.exp(-HIGH)))
    return (pixels + last + between) / math.log(2.0)


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_bound_of_the_exact_network_whatever_the_schedule(seed):
    assert number(Exact(seed)) == pytest.approx(known(), rel=5e-3)


def test_a_wrong_network_costs_its_error_times_the_way_of_gamma():
    wrong, right = (number(Exact(0, error)) for error in (0.5, 0.0))
    assert wrong - right == pytest.approx(0.5 * 0.25 * (HIGH - LOW) / math.log(2.0), rel=0.02)


def test_the_pixel_values_of_a_latent_have_probability_1():
    g, z = math.exp(0.5 * -6.0), 0.123
    levels = (2.0 * torch.arange(256, dtype=torch.float64) + 1.0) / 256 - 1.0
    gamma = torch.tensor(-6.0, dtype=torch.float64)
    cost = reconstruction(levels[:, None], ((z - levels) / g)[:, None], gamma)
    assert float((-cost).exp().sum()) == pytest.approx(1.0, rel=1e-12)


def test_the_prior_costs_nothing_where_all_is_noise():
    f = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    assert float(prior(f, torch.tensor(40.0, dtype=torch.float64))[0]) == pytest.approx(
        0.0, abs=1e-12
    )


def test_the_ends_follow_the_bound():
    module, step = Exact(0), 1e-4
    loss(module, n=16).backward()
    for i, slope in enumerate(module.gamma.ends.grad.tolist()):
        moved = []
        for sign in (1.0, -1.0):
            module.gamma.ends.data[i] += sign * step
            moved.append(number(module, n=16))
            module.gamma.ends.data[i] -= sign * step
        assert slope == pytest.approx((moved[0] - moved[1]) / (2.0 * step), rel=1e-5)


def test_the_shape_follows_the_square():
    x = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    for square in (False, True):
        part = 3.0 * x
        each = part**2 + part
        if not square:
            follow_variance((part,), each.detach())
        (each.square() if square else each).sum().backward()
        if not square:
            hooked, x.grad = x.grad, None
    torch.testing.assert_close(hooked, x.grad)


def test_a_learned_schedule_spreads_the_cost():
    """Over t, where the exact network's cost is 1/2 gamma' V / (V + e^gamma)."""
    module = Exact(0)

    def spread():
        t = np.linspace(0.0, 1.0, 101)
        gamma = -2.0 * VDM.from_module(module.gamma).lam(t)
        cost = np.diff(gamma) * VARIANCE / (VARIANCE + np.exp(0.5 * (gamma[1:] + gamma[:-1])))
        return float(cost.std() / cost.mean())

    before = spread()
    parameters = list(module.gamma.shape.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    for step in range(60):
        optimizer.zero_grad()
        loss(module, n=8, seed=step).backward()
        optimizer.step()
    assert spread() < 0.7 * before


def test_what_it_cannot_train():
    with pytest.raises(ValueError, match=r"trains a network of VDM .* of VP, told 't'"):
        bound(ScoreNetwork(Exact(), VP(), (1, 4, 4)), None, torch.Generator())
    bent = ScoreNetwork(Exact(), VDM(gamma=lambda t: np.expm1(t)), (1, 16, 16), label="gamma")
    batch = Batch(torch.zeros(2, 1, 16, 16), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="neither a schedule `gamma` to learn nor a straight one"):
        bound(bent, batch, torch.Generator())
