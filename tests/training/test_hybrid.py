"""Hybrid score matching against the closed forms of Gaussian data (N(0, 1/4) in every pixel)."""

import numpy as np
import pytest
import torch

from diffusion_engine import ScoreNetwork
from diffusion_engine.processes import CLD, VP
from diffusion_engine.testing import cld_gaussian
from diffusion_engine.training.data import Batch
from diffusion_engine.training.objectives.hybrid import hybrid

SHAPE, STD, LOSS_EPS = (1, 32, 32), 0.5, 0.02


def loss(network, n=128, **options):
    generator = torch.Generator().manual_seed(0)
    x0 = STD * torch.randn((n, *SHAPE), generator=generator, dtype=torch.float64)
    batch = Batch(x0, torch.zeros(n, dtype=torch.int64))
    return float(hybrid(network, batch, generator, loss_eps=LOSS_EPS, **options))


def mean_over_times(of_time, power):
    u = (np.arange(2000) + 0.5) / 2000
    return np.mean([of_time(LOSS_EPS + (1.0 - LOSS_EPS) * at**power) for at in u])


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_exact_score_has_the_loss_that_is_left(mixed, power):
    """1 - L22^2 (Sigma^-1)_vv: what the image adds to the variance of the kernel's score."""
    process = CLD()

    def left(t):
        kernel, a = process.covariance(t), np.array(process.mean(t))
        whole = np.linalg.inv(kernel.matrix + STD**2 * np.outer(a, a))
        return 1.0 - kernel.cholesky[2] ** 2 * whole[1, 1]

    found = loss(cld_gaussian(std=STD, shape=SHAPE, mixed=mixed), power=power)
    assert found == pytest.approx(mean_over_times(left, power), rel=0.02)


@pytest.mark.parametrize("mixed", [True, False])
def test_a_network_that_says_0_has_the_score_that_the_kernel_alone_knows(mixed):
    process = CLD()

    def left(t):
        kernel = process.covariance(t)
        share = mixed * (kernel.cholesky[2] / kernel.vv) ** 2
        return 1.0 + share * ((STD * process.mean(t)[1]) ** 2 - kernel.vv)

    prediction = "mixed_velocity" if mixed else "velocity"
    nothing = ScoreNetwork(lambda u, t: 0.0 * u[:, :1], process, SHAPE, prediction=prediction)
    assert loss(nothing) == pytest.approx(mean_over_times(left, 1.0), rel=0.02)


def test_what_it_cannot_train():
    with pytest.raises(ValueError, match=r"trains a network of CLD .* is one of VP"):
        loss(ScoreNetwork(torch.nn.Identity(), VP(), SHAPE))
    with pytest.raises(ValueError, match="power=0"):
        loss(cld_gaussian(shape=SHAPE), power=0.0)
