"""Grids of published names: against loops and numbers that know nothing of this package."""

from itertools import pairwise

import numpy as np
import pytest
from optional import needs
from oracles import published_grids as oracle

from diffusion_engine.processes import EDM, VP, Discrete, FlowMatching, beta, grids, published

# The published levels of GITS are of a table whose products were made in float32.
FLOAT32 = 5e-5
SD, FLOW = Discrete.scaled_linear(), FlowMatching()


def times(process, n, grid, **options):
    made = grids.points(process, n, lambda p, k: published.GRIDS[grid](p, k, **options))
    assert len(made) == n + 1 and made[-1].sigma == 0.0
    return [p.t for p in made[:-1]]


def ratios(process, n, grid, **options):
    made = grids.points(process, n, lambda p, k: published.GRIDS[grid](p, k, **options))
    return [p.ratio for p in made[:-1]]


@pytest.mark.parametrize("given", oracle.QUANTILES, ids=str)
def test_quantiles(given):
    assert beta.quantile(*given) == pytest.approx(oracle.QUANTILES[given], rel=1e-13)


def test_quantiles_are_those_of_scipy():
    known = needs("scipy.stats").beta
    for a in (0.3, 0.6, 1.0, 2.5, 20.0):
        for b in (0.3, 0.6, 1.0, 5.0):
            for p in (0.0, 1e-12, 1e-3, 0.2, 0.5, 0.8, 0.999, 1.0):
                assert beta.quantile(p, a, b) == pytest.approx(known.ppf(p, a, b), rel=1e-12)


@pytest.mark.parametrize("wrong", [(1.5, 0.6, 0.6), (0.5, 0.0, 0.6), (0.5, 0.6, -1.0)])
def test_what_has_no_quantile(wrong):
    with pytest.raises(ValueError, match="a and b are above 0"):
        beta.quantile(*wrong)


def test_beta():
    assert times(SD, 10, "beta") == list(oracle.BETA_10)
    assert times(SD, 1000, "beta")[0] == 999.0  # whole timesteps would repeat
    flow = times(FLOW, 5, "beta")
    share = [(t - FLOW.t_min) / (1.0 - FLOW.t_min) for t in flow]
    assert share[1:] == pytest.approx(oracle.BETA_LEVELS_6[1:5], rel=1e-12)
    assert times(FLOW, 4, "beta", a=1.0, b=1.0) == pytest.approx([1.0, 0.75025, 0.5005, 0.25075])


def test_beta_sigmas():
    low, high = SD.at(0.0).ratio, SD.at(999.0).ratio
    wanted = [low + (high - low) * q for q in oracle.BETA_LEVELS_6]
    assert ratios(SD, 6, "beta_sigmas") == pytest.approx(wanted, rel=1e-12)


def test_kl_optimal():
    low, high = SD.at(0.0).ratio, SD.at(999.0).ratio
    assert ratios(SD, 9, "kl_optimal") == pytest.approx(oracle.tangents(high, low, 9), rel=1e-12)
    flow = ratios(FLOW, 9, "kl_optimal")
    low = FLOW.at(FLOW.t_min).ratio
    assert flow[0] == np.inf
    assert flow[1:] == pytest.approx(oracle.tangents(np.inf, low, 9)[1:], rel=1e-12)


def test_simple():
    table = list(range(1000))
    assert times(SD, 7, "simple") == [float(table[-(1 + int(i * 1000 / 7))]) for i in range(7)]
    assert times(FLOW, 4, "simple") == [1.0, 0.75, 0.5, 0.25]


def test_sgm_uniform():
    assert times(SD, 4, "sgm_uniform") == [999.0, 749.25, 499.5, 249.75]


@pytest.mark.parametrize("n, threshold, linear", [(10, 0.025, 5), (7, 0.025, 3), (30, 0.1, 4)])
def test_linear_quadratic(n, threshold, linear):
    wanted = oracle.linear_quadratic(n, threshold, linear)
    made = times(FLOW, n, "linear_quadratic", threshold=threshold, linear=linear)
    assert made == pytest.approx(wanted[:-1], rel=1e-12)
    if (threshold, linear) == (0.025, n // 2):
        assert times(FLOW, n, "linear_quadratic") == made


@pytest.mark.parametrize("n", [2, 3, 8, 20, 41])
def test_bong_tangent(n):
    wanted = oracle.bong_tangent(n)
    assert len(wanted) == n + 1
    assert times(FLOW, n, "bong_tangent") == pytest.approx(wanted[:-1], rel=1e-12)


@pytest.mark.parametrize("grid", ["ays", "ays_sdxl", "ays_svd"])
def test_ays(grid):
    levels = published.AYS[{"ays": "sd15"}.get(grid, grid[4:])]
    assert ratios(SD, 10, grid) == pytest.approx(levels[:-1], rel=1e-12)
    for n in (1, 6, 25):
        wanted = oracle.log_linear(levels, n + 1)[:-1]
        assert ratios(EDM(), n, grid) == pytest.approx(wanted, rel=1e-12)


def test_ays_is_the_published_table():
    assert published.AYS["sd15"] == oracle.SD15


@pytest.mark.parametrize("coefficient, n", oracle.GITS)
def test_gits(coefficient, n):
    made = ratios(VP(), n, "gits", coefficient=coefficient)
    assert made == pytest.approx(oracle.GITS[coefficient, n][:-1], rel=FLOAT32)


@pytest.mark.parametrize("coefficient", oracle.GITS_SUMS)
def test_every_schedule_of_gits(coefficient):
    """Another digit moves a sum by 0.03 or more; what float32 did to levels, by less than 0.02."""
    known, total = published.published_gits, 0.0
    for n in range(2, 21):
        for i, k in enumerate(known.places(n, coefficient) or ()):
            total += i * np.log(SD.at(9.99 * k).ratio)
    assert total == pytest.approx(oracle.GITS_SUMS[coefficient], abs=0.02)
    assert oracle.GITS_SUMS.keys() == known.COEFFICIENTS.keys()


def test_gits_between_its_schedules():
    longest = oracle.GITS[1.2, 20]
    for n in (1, 33):
        assert ratios(VP(), n, "gits") == pytest.approx(
            oracle.log_linear(longest, n + 1)[:-1], rel=FLOAT32
        )
    assert len(times(SD, 19, "gits", coefficient=1.15)) == 19  # the one that was not published
    for coefficient in published.published_gits.COEFFICIENTS:
        for n in range(2, 21):
            falls = ratios(SD, n, "gits", coefficient=coefficient)
            assert all(b < a for a, b in pairwise(falls))


def test_shift():
    assert times(FLOW, 5, "shift") == pytest.approx(oracle.SHIFT_3, rel=1e-12)
    assert times(FLOW, 5, "shift", shift=1.0) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    mu = published.mu_of(1024)
    assert mu == pytest.approx(0.63) and published.mu_of(4096) == pytest.approx(1.15)
    assert times(FLOW, 5, "shift", mu=mu) == pytest.approx(oracle.FLUX_1024, rel=1e-12)


@pytest.mark.parametrize(
    "grid, option, said",
    [
        ("ays", {"model": "sd3"}, "model='sd3': choose sd15, sdxl, svd"),
        ("gits", {"coefficient": 0.7}, "coefficient=0.7: choose 0.85, 0.9"),
        ("shift", {"shift": 0.0}, "shift=0: it is above 0"),
        ("linear_quadratic", {"linear": 9}, "linear=9 of 9 steps"),
        ("linear_quadratic", {"threshold": 0.6}, "threshold=0.6"),
        ("beta", {"a": 0.0}, "a and b are above 0"),
    ],
)
def test_options_that_make_no_grid(grid, option, said):
    with pytest.raises(ValueError, match=said):
        times(FLOW, 9, grid, **option)
