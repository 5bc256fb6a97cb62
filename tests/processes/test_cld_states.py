"""States of CLD that a user gives and gets: encoding, [x, v] whole, x alone."""

import cld_cases as cases
import numpy as np
import pytest
import torch
from cld_cases import VARYING

from diffusion_engine import Sampler
from diffusion_engine.processes import CLD
from diffusion_engine.solvers.cld import flow
from diffusion_engine.testing import cld_gaussian, cld_mixture

EXACT = {"dtype": torch.float64, "backend": "torch"}


@pytest.mark.parametrize("process", [CLD(), VARYING], ids=["constant", "varying"])
@pytest.mark.parametrize("solver, slope", [("cld_ode", 1.9), ("cld_exp", 2.5)])
def test_encoding_leads_back(solver, slope, process):
    """[x, v] of the first time is the latent; a velocity is drawn where x is given alone."""
    network = cld_mixture(process=process, shape=(1, 4, 4))
    images = Sampler(network, "cld_exp", 60, **EXACT).sample(128).samples
    errors = []
    for n in (40, 80):
        sampler = Sampler(network, solver, n, end="t_min", **EXACT)
        latents = sampler.encode(images).samples
        back = sampler.sample(x=latents, noised=True).samples
        errors.append(float((back - images).abs().mean()))
    assert latents.shape == (128, 2, 4, 4)
    x, v = latents.unbind(1)
    assert (float(x.std()), float(v.std())) == pytest.approx((1.0, 0.5), rel=0.06)
    assert abs(float((x * v).mean())) < 0.04
    assert errors[1] < 0.02
    assert np.log2(errors[0] / errors[1]) > slope


def test_a_whole_state():
    """Given at any time, to any solver, and read back from what encoding returns."""
    network = cld_mixture(shape=(3, 5, 7))
    x, v = 0.1 * torch.randn(2, 4, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    u = torch.cat([x, v], dim=1)
    up = Sampler(network, "cld_exp", 60, end="t_min", backend="cpp", batch_size=3)
    latents = up.encode(u)
    assert latents.samples.shape == (4, 6, 5, 7)
    assert torch.equal(Sampler.replay(network, latents.recipe, x=u).samples, latents.samples)
    reference = Sampler(network, "cld_exp", 60, end="t_min", backend="torch").encode(u)
    assert torch.equal(latents.samples, reference.samples)
    assert (up.sample(x=latents.samples, noised=True).samples - x).abs().mean() < 0.003
    made = Sampler(network, "sscs", 200).sample(x=u, start=0.01, noised=True).samples
    assert 0.0 < float((made - x).abs().mean()) < 0.1
    again = network.process
    plan = cases.plan("sscs", [0.4, 0.3], again, start="whole", merged=False)
    a, noise = flow(again, float(again.integral(0.4) - again.integral(0.35)))
    _, matrix, normals, _ = cases.maps(plan, again)[0]
    assert matrix[:2, :2] == pytest.approx(a, abs=1e-14)
    assert normals[:2] @ normals[:2].T == pytest.approx(noise, abs=1e-14)


def test_a_drawn_velocity_is_not_that_of_the_sample():
    """An x made from the same seed does not meet the normals again that it was made of."""
    sampler = Sampler(cld_gaussian(), "cld_exp", 40)
    given = sampler.plan(kind="state").rows[0]
    assert given.draws(1)
    assert given.key not in {row.key for row in sampler.plan().rows}
