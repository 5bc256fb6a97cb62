"""DDRM, DAPS and TDS: methods for inverse problems that lead their seats, beside float64 loops."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from oracles import restoration

from diffusion_engine import Sampler
from diffusion_engine.drivers import driver
from diffusion_engine.drivers.daps import LEVEL
from diffusion_engine.ops import philox
from diffusion_engine.processes import EDM, VP
from diffusion_engine.testing import Gaussian
from diffusion_engine.testing.cld import cld_mixture

SHAPE, SIGMA_Y = (1, 2, 4), 0.2
DATA = Gaussian()
OPERATORS = {
    "super_resolution": {"name": "super_resolution", "factor": 2},
    "deblurring": {"name": "deblurring", "size": 3, "padding": "circular"},
    "inpainting": {"name": "inpainting", "box": [0, 1, 1, 2]},
}


def sampler(name, process, operator="super_resolution", steps=6, backend="cpp", **options):
    made = {"operator": OPERATORS[operator], "sigma_y": SIGMA_Y} | options
    network = DATA.network(process, SHAPE)
    return Sampler(network, "ddim", steps, backend=backend, driver={"name": name, "options": made})


def matrix(made):
    unit = torch.eye(math.prod(SHAPE), dtype=torch.float64).reshape(-1, *SHAPE)
    return made.apply(unit).flatten(1).T.numpy()


def measurement(made, seed=3):
    x0 = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return made.apply(x0)[0]


def drawn(seed, keys, m=0):
    keys = torch.tensor(list(keys))
    made = philox.normals(torch.full_like(keys, seed), keys, m, math.prod(SHAPE))
    return made.double().numpy()


def denoise(x, p):
    gain = p[1] * 0.25 / (p[1] ** 2 * 0.25 + p[2] ** 2)
    return 0.3 + gain * (x - p[1] * 0.3)


def levels(points):
    return [(p.t, p.alpha, p.sigma) for p in points]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("process", [VP(), EDM()], ids=["vp", "edm"])
@pytest.mark.parametrize("sigma_y", [0.0, 0.2])
def test_ddrm_against_its_loop(process, operator, sigma_y):
    made = sampler("ddrm", process, operator, sigma_y=sigma_y, eta_b=0.9)
    y = measurement(made.driver.made)
    found = made.sample(1, seed=4, measurement=y).samples[0].flatten()
    parts = made.driver._components(SHAPE, torch.device("cpu"))
    u, s, v = parts.u.numpy(), parts.s.numpy(), parts.v.numpy()
    np.testing.assert_allclose(u * s @ v.T, matrix(made.driver.made), atol=1e-12)
    np.testing.assert_allclose(v @ v.T, np.eye(len(v)), atol=1e-12)
    mine = restoration.ddrm(
        levels(made.points), denoise, u, s, v, y.double().flatten().numpy(), sigma_y, 0.85, 0.9,
        drawn(4, range(7)),
    )  # fmt: skip
    scale = max(1.0, made.points[0].sigma)
    np.testing.assert_allclose(found, mine, atol=2e-5 * scale)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("process", [VP(), EDM()], ids=["vp", "edm"])
def test_daps_against_its_loop(process, operator):
    made = sampler("daps", process, operator, steps=4, ode_steps=3, langevin=7, step=0.4)
    by, points = made.driver.made, made.points
    y, low = measurement(by), process.t_min
    result = made.sample(1, seed=4, measurement=y)
    inner = []
    for s in points[:-1]:
        later = [s.t + (low - s.t) * j / 3 for j in (1, 2)] if s.t > low else []
        inner.append(levels([s, *map(process.at, later)]))
    start = drawn(4, [0])[0] * process.prior_std(points[0])
    keys = range(LEVEL, LEVEL * len(points), LEVEL)
    mine = restoration.daps(
        levels(points), inner, denoise, matrix(by), y.double().flatten().numpy(), SIGMA_Y, 0.4, start,
        [drawn(4, range(key + 1, key + 8)) for key in keys], [drawn(4, [key], 1)[0] for key in keys],
    )  # fmt: skip
    scale = max(1.0, points[0].sigma)
    np.testing.assert_allclose(result.samples[0].flatten(), mine, atol=1e-4 * scale)
    assert result.nfe == sum(map(len, inner))


@pytest.mark.parametrize("resample", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("process", [VP(), EDM()], ids=["vp", "edm"])
def test_tds_against_its_loop(process, resample):
    count, seeds = 6, range(20, 26)
    made = sampler("tds", process, steps=5, resample=resample)
    points, by = made.points, made.driver.made
    y = measurement(by)
    result = made.sample(seeds=seeds, measurement=y)
    z = np.stack([drawn(seed, range(6)) for seed in seeds], axis=1)
    uniforms = [0.5 * math.erfc(-v / math.sqrt(2)) for v in drawn(20, range(1, 6), 1)[:, 0]]
    n = math.prod(SHAPE)
    mine, ess = restoration.tds(
        levels(points), denoise, lambda p: np.eye(n) * (denoise(1.0, p) - denoise(0.0, p)), matrix(by),
        y.double().flatten().numpy(), SIGMA_Y, resample, z[0] * process.prior_std(points[0]), z[1:],
        uniforms,
    )  # fmt: skip
    scale = max(1.0, points[0].sigma)
    np.testing.assert_allclose(result.samples.flatten(1), mine, atol=1e-4 * scale)
    np.testing.assert_allclose(result.reports[0]["effective"], ess, rtol=1e-3)
    assert len(result.reports) == count


def test_tds_comes_to_the_posterior():
    """That of the chain's own law of x0, a Gaussian whose moments DDPM's steps have in closed form."""
    made, count = sampler("tds", EDM(), steps=20), 150
    by, points = made.driver.made, levels(made.points)
    y, a = measurement(by).double().flatten().numpy(), matrix(by)
    prior, v = 0.0, points[0][2] ** 2
    for s, t in pairwise(points):
        keep = t[2] ** 2 / s[2] ** 2  # sqrt(sigma_t^2 - c^2) / sigma_s of EDM, alpha 1
        offset, slope = denoise(0.0, s), denoise(1.0, s) - denoise(0.0, s)
        prior = keep * prior + (1 - keep) * (offset + slope * prior)
        v = (keep + (1 - keep) * slope) ** 2 * v + t[2] ** 2 * (1 - keep)
    result = made.sample(count, seed=1, measurement=measurement(by), batch_size=count)
    found = result.samples.double().flatten(1).numpy()
    gain = v * a.T @ np.linalg.inv(v * a @ a.T + SIGMA_Y**2 * np.eye(len(a)))
    mean = prior + gain @ (y - a @ np.full(8, prior))
    variance = np.diag(v * np.eye(8) - gain @ a * v)
    independent = min(result.reports[0]["effective"])
    assert np.abs(found.mean(0) - mean).max() < 3.5 * math.sqrt(variance.max() / independent)
    few = math.sqrt(2.0 / (independent * 8))
    assert abs(found.var(0).mean() / variance.mean() - 1.0) < 3.5 * few


@pytest.mark.parametrize("name", ["ddrm", "daps"])
def test_bits_alone_and_in_a_batch(name):
    more = {"ode_steps": 2, "langevin": 3} if name == "daps" else {}
    found = []
    for backend in ("cpp", "torch"):
        made = sampler(name, VP(), steps=4, backend=backend, **more)
        y = torch.stack([measurement(made.driver.made, seed) for seed in range(3)])
        together = made.sample(3, seed=5, measurement=y)
        alone = [made.sample(seeds=[5 + i], measurement=y[i]).samples[0] for i in range(3)]
        assert torch.equal(together.samples, torch.stack(alone))
        again = Sampler.replay(DATA.network(VP(), SHAPE), together.recipe, measurement=y)
        assert torch.equal(again.samples, together.samples)
        found.append(together.samples)
    assert torch.equal(*found)


def test_bad_hands():
    by = OPERATORS["super_resolution"]
    for name, options, words in (
        ("ddrm", {"eta": 1.5}, "share from 0 to 1"),
        ("ddrm", {"sigma_y": -0.1}, "0 or more"),
        ("daps", {"sigma_y": 0.0}, "above 0"),
        ("daps", {"step": 2.0}, "below 2"),
        ("daps", {"ode_steps": 0}, "once or more"),
        ("daps", {"langevin": 5000}, "at most"),
        ("tds", {"sigma_y": 0.0}, "above 0"),
        ("tds", {"resample": 2.0}, "share"),
    ):
        with pytest.raises(ValueError, match=words):
            driver(name, operator=by, **options)
    large = DATA.network(VP(), (1, 128, 128))
    with pytest.raises(ValueError, match="more than 4096 elements"):
        Sampler(large, "ddim", 4, driver={"name": "ddrm", "options": {"operator": by}})
    with pytest.raises(ValueError, match=r"state is \[x, v\]"):
        Sampler(cld_mixture(shape=SHAPE), "sscs", 4, driver=driver("ddrm", operator=by))
    made = sampler("ddrm", VP())
    with pytest.raises(ValueError, match="give measurement="):
        made.sample(1)
    y = measurement(made.driver.made)
    with pytest.raises(ValueError, match="leave out x"):
        made.sample(1, measurement=y, x=torch.zeros(1, *SHAPE), start=0.5)
