"""Annealed MCMC: the laws that it ends with, in closed form and in the plane."""

import numpy as np
import pytest
from mcmc_cases import (
    BINS,
    at_points,
    composed,
    gaussians,
    in_plane,
    mcmc,
    sampled,
    total_variation,
)

# Of N(0, 1) and N(1, 1), whose product is N(1/2, 1/2). Without a chain the run starts from N(0, 1).
LAST = {"below": 0.02}  # the chain runs at the last level alone


def moments(result):
    values = result.samples.double()
    return float(values.mean()), float(values.var())


def test_plain_composition_collapses_along_the_ode():
    """Its variance is the square of alpha at the noisiest time, 4.3e-5."""
    mean, variance = moments(sampled(gaussians(shape=(1, 32, 32)), 8, 400, solver="dpmpp_2m"))
    assert mean == pytest.approx(0.5, abs=2e-4)
    assert variance == pytest.approx(4.3e-5, rel=0.05)


def test_plain_composition_is_too_narrow_along_the_sde():
    mean, variance = moments(sampled(gaussians(shape=(1, 32, 32)), 16, 400))
    assert mean == pytest.approx(0.5, abs=0.015)
    assert variance == pytest.approx(
        1 / 3, rel=0.06
    )  # 3 standard deviations of the estimate are 0.033


@pytest.mark.parametrize("e", [0.1, 0.25])
def test_ula_ends_at_its_own_variance(e):
    """1/2 / (1 - e) for the score -2 (x - 1/2)."""
    led = mcmc(steps=20, step=e, unit="one", **LAST)
    mean, variance = moments(sampled(gaussians(shape=(1, 32, 32)), 8, 20, driver=led))
    assert mean == pytest.approx(0.5, abs=0.03)
    assert variance == pytest.approx(0.5 / (1.0 - e), rel=0.05)


@pytest.mark.parametrize(
    ("options", "acceptance"),
    [
        (dict(sampler="mala", step=0.5, steps=80), 0.784),
        (dict(sampler="hmc", step=0.7, steps=30, leapfrogs=2), None),
    ],
    ids=["mala", "hmc"],
)
def test_what_accepts_ends_at_the_product(options, acceptance):
    """Where ULA of that step has twice the variance."""
    led = mcmc(unit="one", **options, **LAST)
    made = sampled(gaussians(), 24, 10, driver=led)
    mean = np.mean([report["acceptance"] for report in made.reports])
    if acceptance is not None:  # 3 standard deviations of 1920 coins and their chains
        assert mean == pytest.approx(acceptance, abs=0.03)
    else:
        assert 0.6 < mean < 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mala", "hmc"])
def test_what_accepts_has_the_variance_of_the_product(name):
    # A move of HMC turns by about 2 here: one that turns by half a circle would only change sides.
    step, steps = {"mala": (0.5, 12), "hmc": (0.7, 6)}[name]
    led = mcmc(sampler=name, unit="one", step=step, steps=steps, leapfrogs=2, **LAST)
    mean, variance = moments(sampled(gaussians(), 600, 40, driver=led))
    assert mean == pytest.approx(0.5, abs=0.09)  # 3 standard deviations
    assert variance == pytest.approx(0.5, rel=0.18)


PRODUCT, MIXTURE = composed(np.multiply), composed(lambda a, b: 0.25 * a + 0.75 * b)
NEGATED = composed(lambda a, b: a * b**-0.3)


def test_chains_come_nearer_to_the_product_in_the_plane():
    """Total variation to the true product, of 2000 points each, at equal calls."""
    network, left = in_plane(1000), {}
    for name, steps, led in [
        ("plain", 120, None),
        ("ula", 20, mcmc(sampler="ula", steps=5, step=0.3, unit="sigma")),
        ("uhmc", 17, mcmc(sampler="uhmc", steps=2, leapfrogs=3, step=0.5)),
    ]:
        made = sampled(network, 2, steps, driver=led)
        assert 118 < made.nfe <= 120
        left[name] = total_variation(at_points(made), PRODUCT)
    assert max(left["ula"], left["uhmc"]) < 0.6 * left["plain"]


def test_negation_in_the_plane():
    """A density divided by a root of the other."""
    network, compose = in_plane(1000), [(0, 1.0), (1, -0.3)]
    plain = sampled(network, 1, 60, compose)
    led = mcmc(steps=5, step=0.2, unit="sigma")
    chain = sampled(network, 1, 10, compose, driver=led)
    left = [total_variation(at_points(made), NEGATED) for made in (plain, chain)]
    assert left[1] < left[0]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_samplers_that_accept_in_the_plane():
    """One point a sample, since a sample is accepted or not as a whole."""
    network, left = in_plane(), {}
    led = {
        "plain": None,
        "mala": mcmc(sampler="mala", steps=4, step=0.3, unit="sigma"),
        "hmc": mcmc(sampler="hmc", steps=2, leapfrogs=2, step=0.6),
    }
    for name, driver in led.items():
        made = sampled(network, 500, 120 if driver is None else 20, driver=driver)
        left[name] = total_variation(at_points(made), PRODUCT)
        if driver is not None:
            mean = np.mean([report["acceptance"] for report in made.reports])
            assert 0.6 < mean < 0.99
    assert max(left["mala"], left["hmc"]) < left["plain"]


def test_a_mixture_in_the_plane():
    """Noised mixtures are mixtures of the noised, so that the reverse diffusion alone has its law."""
    led = mcmc(composition="mixture", steps=0)
    made = sampled(in_plane(), 250, 20, [(0, 0.25), (1, 0.75)], driver=led)
    share = np.mean(at_points(made)[:, 0] < 0.0)
    assert share == pytest.approx(MIXTURE[: BINS // 2].sum(), abs=0.09)  # 3 standard deviations
