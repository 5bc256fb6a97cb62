"""Processes and grids: the constants of the papers, and that every map has its inverse."""

from itertools import pairwise

import numpy as np
import pytest
from analytic import BY_SCHEDULE as ALL
from analytic import network
from oracles import golden, problems
from oracles.problems import SCHEDULES, TM

from diffusion_engine import Sampler
from diffusion_engine.processes import EDM, VE, VP, Discrete, SubVP, grids


def test_vp_constants():
    vp = VP()
    assert vp.lam(1.0) == pytest.approx(-5.02497841, abs=1e-8)
    assert vp.lam(1e-3) == pytest.approx(4.55771493, abs=1e-8)
    assert vp.lam(1e-5) == pytest.approx(6.90725778, abs=1e-8)
    assert vp.alpha(1.0) == pytest.approx(6.57158649e-3, rel=1e-8)
    assert vp.at(1.0).ratio == pytest.approx(152.166970, rel=1e-8)
    assert vp.at(1e-3).ratio == pytest.approx(0.0104859928, rel=1e-8)


def test_table_constants():
    ddpm, sd = Discrete.linear(), Discrete.scaled_linear()
    assert ddpm.alpha(0.0) ** 2 == pytest.approx(0.9999, rel=1e-9)
    assert ddpm.alpha(999.0) ** 2 == pytest.approx(4.035830e-5, rel=1e-6)
    assert [ddpm.at(t).ratio for t in (0, 999)] == pytest.approx([0.010001, 157.4073], rel=6e-5)
    assert sd.alpha(0.0) ** 2 == pytest.approx(0.99915, rel=1e-9)
    assert sd.alpha(999.0) ** 2 == pytest.approx(0.00466010, rel=1e-6)
    assert [sd.at(t).ratio for t in (0, 999)] == pytest.approx([0.029167, 14.614641], rel=2e-5)


def test_zero_terminal_snr():
    process = Discrete.scaled_linear().zero_terminal_snr()
    bar = process.alpha([0.0, 500.0, 998.0, 999.0]) ** 2
    assert bar[:3] == pytest.approx([0.99915, 0.24101878, 1.967888e-7], rel=1e-6)
    assert bar[3] == 0.0 and process.sigma(999.0) == 1.0


@pytest.mark.parametrize("name", ALL)
def test_equals_the_oracle(name):
    process, oracle = ALL[name], SCHEDULES[name]
    for t in np.linspace(process.t_min, process.t_max * 0.999, 25):
        ours, theirs = process.at(float(t)), oracle.point(float(t))
        assert [ours.alpha, ours.sigma] == pytest.approx([theirs.alpha, theirs.sigma], rel=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_lam_has_its_inverse(name):
    process = ALL[name]
    t = np.linspace(process.t_min, process.t_max * 0.999, 10_000)
    lam = process.lam(t)
    assert np.all(np.diff(lam) < 0)
    # A time near 0 is known only as well as lam is: compare where the rounding happened.
    back = process.lam(process.t_of_lam(lam))
    assert np.abs(back - lam).max() <= 1e-12 * np.abs(lam).max()
    assert np.abs(process.t_of_lam(lam) - t).max() <= 1e-12 * process.t_max


def test_lambda_grid():
    made = grids.points(VP(), 10, "lambda", end="t_min")
    assert [p.t for p in made] == pytest.approx(list(golden.LAM_GRID_10), abs=1e-8)


def test_karras_grid():
    made = grids.points(EDM(), 18, "karras")
    assert [p.sigma for p in made[:-1]] == pytest.approx(list(golden.KARRAS_18), rel=1e-7)
    assert made[-1].sigma == 0.0


def test_exponential_grid_is_uniform_in_lam():
    lam = [p.lam for p in grids.points(VP(), 7, "exponential", end="t_min")]
    assert np.diff(lam) == pytest.approx(np.diff(lam).mean(), rel=1e-9)


def test_quadratic_grid():
    made = [p.t for p in grids.points(VP(), 5, "quadratic", end="t_min")]
    assert made == pytest.approx(
        [1, 0.65015929, 0.37533893, 0.17553893, 0.05075929, 0.001], abs=1e-8
    )


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("n", [2, 10, 30, 50, 1000])
def test_timestep_spacings(spacing, n):
    made = [p.t for p in grids.points(Discrete.linear(), n, spacing)]
    assert made[:-1] == [float(t) for t in problems.spaced_timesteps(spacing, n)]
    assert made[-1] == -1.0
    assert len(made) == n + 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steps", [1, 2, 13])
def test_default_grid_falls_to_clean_data(name, steps):
    made = grids.points(ALL[name], steps)
    assert len(made) == steps + 1
    assert made[-1].sigma == 0.0 and made[-1].alpha == 1.0
    assert all(a.lam < b.lam for a, b in pairwise(made))


def test_users_sigmas_are_verbatim():
    sigmas = [14.6, 3.3, 0.4, 0.0]
    for process in (VP(), EDM(), Discrete.linear(), SubVP()):
        made = grids.from_sigmas(process, sigmas)
        assert [p.ratio for p in made] == pytest.approx(sigmas, rel=1e-15)
        for p in made[:-1]:
            assert p.sigma == pytest.approx(float(process.sigma(p.t)), rel=1e-10)


def test_users_times_are_verbatim():
    times = [0.91, 0.5, 0.2]
    assert [p.t for p in grids.from_times(VP(), times)] == times
    assert grids.from_times(VP(), [0.5, 0.0])[-1].sigma == 0.0


def started(sampler, t):
    return [(row.state.t, row.state.lam) for row in sampler.plan(start=t, kind="image").rows]


@pytest.mark.parametrize("process", [VP(), VE(), EDM(), Discrete.linear()])
@pytest.mark.parametrize("given", ["sigmas", "times"])
def test_a_start_at_a_point_of_the_run_is_that_point(process, given):
    """A level of its own is not, to the last bit, the process's at its t: no step lies between."""
    levels = np.geomspace(0.9 * process.noisiest.ratio, 1.1 * process.at(process.t_min).ratio, 9)
    points = grids.from_sigmas(process, levels)
    own = Sampler(
        network(TM, process), "dpmpp_2m", **{given: levels if given == "sigmas" else points}
    )
    for k, at in enumerate(own.points[:-1]):
        assert started(own, at.t) == [(p.t, p.lam) for p in own.points[k:]]
        assert started(own, float(np.float32(at.t))) == started(own, at.t)
    up = own.plan(start=points[-1].t, refine=0)
    assert [row.state.lam for row in up.rows] == [p.lam for p in points[::-1]]


def test_a_start_at_a_time_that_levels_share():
    """Levels beyond the process have its first time; the nearest to its level is meant."""
    edge = VP().noisiest.ratio
    beyond = [3.0 * edge, 2.0 * edge, edge, 0.5 * edge, 0.0]
    own = Sampler(network(TM, VP()), "dpmpp_2m", sigmas=beyond)
    assert [p.t for p in own.points[:3]] == pytest.approx([1.0] * 3)
    assert started(own, own.points[0].t)[0][1] == own.points[2].lam
