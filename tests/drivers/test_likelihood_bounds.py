"""Bounds: CLD's by its joint density, and VDM's variational one."""

import math

import numpy as np
import pytest
import torch
from optional import needs
from oracles import likelihood as oracle
from scipy.stats import norm

from diffusion_engine import likelihood, variational_bound
from diffusion_engine.adapters.vdm import MonotoneGamma
from diffusion_engine.drivers.likelihood_bound import _weighted
from diffusion_engine.drivers.likelihood_prior import velocities
from diffusion_engine.processes import CLD, EDM, VDM, VP, FlowMatching
from diffusion_engine.testing import Gaussian, cld_gaussian

needs("torchdiffeq")

F64 = torch.float64
BITS = 1.0 / math.log(2.0)


def joint(process, t):
    """The covariance of (x, v) for data N(0, 0.25)."""
    a = np.array(process.mean(t))
    return process.covariance(t).matrix + 0.25 * np.outer(a, a)


def test_the_joint_density_of_cld():
    """log p(x, v) of a Gaussian in closed form, at t_min and, for the prior, at the end."""
    network = cld_gaussian(shape=(2,))
    process, x = network.process, torch.tensor([[0.4, -0.2], [0.9, 0.1]], dtype=F64)
    made = likelihood(network, x, dtype=F64, probes=2, rtol=1e-6, atol=1e-6)
    v = velocities(process, made.seeds, (2,))
    assert v.std().item() < 0.3 and made.latents.shape == (2, 4)
    entropy = 1.0 + math.log(2.0 * math.pi * process.gamma * process.mass)
    for i, (z, w) in enumerate(torch.stack(made.latents.chunk(2, dim=1), dim=1)):
        there = oracle.joint_gaussian(z, w, joint(process, process.t_max))
        here = oracle.joint_gaussian(x[i], v[i], joint(process, made.t_min))
        said = made.log_p[i] - made.prior[i] + there - entropy
        assert said.item() == pytest.approx(here, abs=1e-4)
        prior = oracle.log_normal(z, 1.0) + oracle.log_normal(w, process.mass)
        assert made.prior[i].item() == pytest.approx(prior, abs=1e-9)
    assert made.bound and made.t_min == 1e-5


def test_the_bound_of_cld_is_above_the_likelihood():
    """Of N(0, 0.25), whose likelihood is known: by its expectation over v in closed form, and by draws."""
    network = cld_gaussian(shape=(8,), process=CLD(numerical_eps=1e-6))
    process, x = network.process, 0.4
    covariance = joint(process, 1e-5)
    variance = process.gamma * process.mass
    precision = np.linalg.inv(covariance)
    expected = 0.5 * (precision[0, 0] * x**2 + precision[1, 1] * variance)
    expected += 0.5 * np.linalg.slogdet(covariance)[1] + math.log(2.0 * math.pi)
    expected -= 0.5 * (1.0 + math.log(2.0 * math.pi * variance))
    true = -norm(0.0, 0.5).logpdf(x)
    assert true < expected < true + 0.1
    made = likelihood(network, torch.full((6, 8), x), probes=1, rtol=1e-3, atol=1e-3)
    assert abs(made.mean - 7.0 - expected * BITS) < 3.0 * made.standard_error
    assert made.mean - 7.0 > true * BITS - 3.0 * made.standard_error


# --- VDM


@pytest.mark.parametrize("steps", [None, 12])
def test_the_diffusion_term_by_quadrature(steps):
    process = VDM.linear(-6.0, 4.0)
    network = Gaussian(0.1, 0.3).network(process, (1, 4, 4), prediction="eps")
    levels = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4) * 17
    f = (2.0 * levels.double() + 1.0) / 256.0 - 1.0
    made = variational_bound(network, levels.expand(8, 1, 4, 4), dtype=F64, steps=steps, times=24)
    term = oracle.diffusion_term(f.numpy(), 0.1, 0.09, -6.0, 4.0, steps) * BITS / 16.0
    assert made.diffusion.std() > 0.0
    error = made.diffusion.std().item() / math.sqrt(8)
    assert abs(made.diffusion.mean().item() - term) < 3.0 * error
    # Times are spread evenly, so that taking them for independent overstates the error.
    assert error < made.error.mean().item()
    last = process.at(1.0)
    prior = 0.5 * (last.alpha**2 * f**2 + last.sigma**2 - math.log(last.sigma**2) - 1.0).sum()
    assert made.prior[0].item() == pytest.approx(prior.item() * BITS / 16.0, rel=1e-9)
    whole = made.reconstruction + made.prior + made.diffusion
    assert torch.equal(made.bits_per_dim, whole) and made.nfe == 24


def test_the_slope_of_a_learned_schedule():
    """gamma' of a network, which the process asks for gamma alone, against its derivative."""
    torch.manual_seed(0)
    module = MonotoneGamma(-6.0, 4.0, hidden=16)
    process = VDM.from_module(module)
    t = torch.tensor([0.0, 0.3, 1.0], dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(module.double()(t).sum(), t)
    for u, true in zip(t.tolist(), slope.tolist(), strict=True):
        at, weight = _weighted(process, u, None)
        assert at == process.at(u) and weight == pytest.approx(
            true, rel=1e-4 if u in (0, 1) else 1e-8
        )


def test_the_bound_of_pixels_is_above_their_probability():
    """Of pixels that are a Gaussian's, cut into levels: the sum over a pixel's level of its density."""
    network = Gaussian(0.1, 0.3).network(VDM(), (1, 4, 4), prediction="eps")
    drawn = 0.1 + 0.3 * torch.randn(32, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x = drawn.clamp(-1.0, 1.0)
    k = ((x.double() + 1.0) * 127.5).round().numpy()
    law = norm(0.1, 0.3)
    true = -np.log2(law.cdf(2.0 * (k + 1.0) / 256.0 - 1.0) - law.cdf(2.0 * k / 256.0 - 1.0)).mean()
    continuous = variational_bound(network, x, times=64)
    steps = variational_bound(network, x, times=64, steps=64)
    assert continuous.mean - 3.0 * continuous.standard_error > true
    assert steps.mean > continuous.mean  # fewer steps bound less tightly
    assert continuous.reconstruction.mean() < 0.05


def test_every_step_once():
    """As many times as steps: the sum over all of them, whatever the first time drawn."""
    network = Gaussian().network(VDM.linear(-3.0, 3.0), (1, 1, 2))
    x = torch.zeros(1, 1, 1, 2)
    f = np.array([257.0 / 256.0 - 1.0] * 2)
    term = oracle.diffusion_term(f, 0.3, 0.25, -3.0, 3.0, 6) * BITS / 2.0
    made = variational_bound(
        network, x.expand(64, 1, 1, 2), steps=6, times=6, seeds=range(64), dtype=F64
    )
    error = made.diffusion.std().item() / 8.0
    assert abs(made.diffusion.mean().item() - term) < 3.0 * error


def test_a_bounds_bits_are_the_same_alone_and_among_others():
    network = Gaussian().network(VP(), (1, 3, 3), prediction="eps")
    x = torch.linspace(-1.0, 1.0, 45).view(5, 1, 3, 3)
    whole = variational_bound(network, x, seed=4, times=3)
    parts = variational_bound(network, x, seed=4, times=3, batch_size=2)
    alone = variational_bound(network, x[2:3], seed=6, times=3)
    for name in ("bits_per_dim", "reconstruction", "prior", "diffusion", "error"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name
        assert torch.equal(getattr(whole, name)[2:3], getattr(alone, name)), name


@pytest.mark.parametrize(
    ("process", "how", "said"),
    [
        (CLD(), {}, "has a velocity"),
        (FlowMatching(), {}, "infinite log-SNR"),
        (EDM(), {"times": 0}, "seen at 1 time or more"),
        (EDM(), {"steps": 0}, "1 step or more"),
    ],
)
def test_what_has_no_variational_bound(process, how, said):
    network = (
        cld_gaussian(process=process)
        if process.parts > 1
        else Gaussian().network(process, prediction="x0")
    )
    with pytest.raises(ValueError, match=said):
        variational_bound(network, torch.zeros(1, 1), **how)


def test_pixels_of_another_range_are_refused():
    with pytest.raises(ValueError, match=r"x goes from 0 to 255"):
        variational_bound(Gaussian().network(VDM()), torch.tensor([[0.0], [255.0]]))
