"""A user's noise levels, inside and outside a process's times, against plain loops in x / alpha."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE
from oracles.problems import EDM as Plain
from oracles.solvers import sample
from solver_checks import TO_ORACLE, name_of

from diffusion_engine import Sampler, ScoreNetwork, genie
from diffusion_engine.processes import CLD, EDM, VDM, VE, VP, Discrete, Point, grids
from diffusion_engine.solvers.adams import t_weights

TABLE = Discrete.scaled_linear()  # its levels go from 14.6 to 0.029
SIGMAS = [80.0, 40.0, 20.0, 14.6, 5.0, 1.0, 0.1, 0.01]
RUNS = [
    ("euler", {}),
    ("euler_ancestral", {"eta": 0.7}),
    ("heun", {}),
    ("heun", {"s_churn": 3.0}),
    ("dpm_2", {}),
    ("dpm_2", {"s_churn": 3.0}),
    ("ddim", {"eta": 0.5}),
    ("ddpm", {}),
    ("dpmpp_2m", {}),
    ("dpmpp_sde", {"eta": 0.5}),
    ("dpmpp_2m_sde", {}),
    ("dpmpp_3m", {}),
    ("dpmpp_3m_sde", {}),
    ("dpm_solver_2", {}),
    ("dpm_solver_3", {}),
    ("unipc", {}),
    ("deis", {"variant": "rhoab"}),
    ("ipndm", {}),
    ("plms", {}),
    ("lms", {}),
]


def eps(x, t, tanh):
    return tanh(0.8 * x + 0.002 * t)


def label_of(sigma):
    """The place of a level in the table, which its log interpolates; the nearest outside."""
    bar = np.cumprod(1.0 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    return np.interp(math.log(sigma), 0.5 * np.log((1.0 - bar) / bar), np.arange(1000.0))


@pytest.mark.parametrize("end", [[], [0.0]], ids=["to 0.01", "to 0"])
@pytest.mark.parametrize("name, options", RUNS, ids=name_of)
def test_equals_a_plain_loop(name, options, end):
    """The state is x / alpha, the network reads x / sqrt(1 + sigma^2) and the label."""
    network = ScoreNetwork(
        lambda x, t: eps(x, t[:, None], torch.tanh), TABLE, (1,), label_dtype=torch.float64
    )
    made = Sampler(
        network, name, sigmas=SIGMAS + end, dtype=torch.float64, backend="torch", **options
    )
    x, draws = np.array([0.7, -1.3, 0.1]), {}

    def noise(i, m, seeds):
        draws[i, m] = np.random.default_rng([i, m]).standard_normal(3, np.float32).astype(float)
        return torch.from_numpy(draws[i, m])[:, None]

    ours = made.sample(x=torch.from_numpy(x)[:, None], noised=True, noise=noise).samples[:, 0]

    def denoiser(x, at):
        return x - at.sigma * eps(x / math.hypot(1.0, at.sigma), label_of(at.sigma), np.tanh)

    points = [Plain().point(s) for s in SIGMAS + end]
    queue = [draws[key] for key in sorted(draws)]
    start = x * math.hypot(1.0, SIGMAS[0])
    options = TO_ORACLE.get(name, lambda o: o)(options)
    theirs = sample(name, denoiser, Plain(), points, start, lambda *_: queue.pop(0), **options)
    theirs = theirs / math.hypot(1.0, points[-1].sigma)
    assert ours.numpy() == pytest.approx(theirs, rel=1e-9, abs=1e-9) and not queue


@pytest.mark.parametrize("name", BY_SCHEDULE)
def test_a_level_keeps_its_value(name):
    process = BY_SCHEDULE[name]
    sigmas = [1e4, 300.0, 3.0, 0.1, 1e-3, 1e-5]
    made = grids.from_sigmas(process, sigmas)
    low, high = process.range
    size = {"ve": lambda p: p.alpha, "edm": lambda p: p.alpha, "flow": lambda p: p.alpha + p.sigma}
    for p, sigma in zip(made, sigmas, strict=True):
        assert p.ratio == pytest.approx(sigma, rel=4e-16) and low <= p.t <= high
        if name != "subvp":
            own = size.get(name, lambda p: p.alpha**2 + p.sigma**2)
            assert own(p) == pytest.approx(1.0, rel=1e-12)
    assert [process.at_lam(p.lam).ratio for p in made] == pytest.approx(sigmas, rel=1e-14)


def test_the_label_is_the_nearest():
    assert [p.t for p in grids.from_sigmas(TABLE, [80.0, 14.7, 0.01])] == [999.0, 999.0, 0.0]
    assert VP().at_ratio(1e4).t == 1.0 and VE().at_ratio(1e-3).t == 0.0
    at = EDM().at_ratio(100.0)
    assert at == Point(pytest.approx(100.0, rel=1e-12), 1.0, 100.0)
    inside = TABLE.at_lam(float(TABLE.lam(400.25)))
    assert inside.t == pytest.approx(400.25, rel=1e-12)
    with pytest.raises(ValueError, match="beyond that of CLD at t=1"):
        CLD().at_ratio(1e9)


def test_a_prior_has_the_width_of_its_level():
    network = ScoreNetwork(lambda x, t: x, VE(sigma_max=50.0), (1,))
    (new,) = Sampler(network, "euler", sigmas=[100.0, 1.0]).plan().rows[0].new.values()
    assert new["z0"] == 100.0


@pytest.mark.parametrize("name", ["vp", "ve", "sd", "vdm"])
def test_deis_interpolates_over_levels_with_one_label(name):
    process = VDM() if name == "vdm" else BY_SCHEDULE[name]
    points = [process.at_ratio(g) for g in (1e4, 4e3, 2e3, 1e3)]
    assert len({p.t for p in points}) == 1
    weights = t_weights(process, points[2::-1], points[3])
    whole = points[3].alpha * (points[3].ratio - points[2].ratio)
    assert sum(weights) == pytest.approx(whole, rel=1e-9) and max(map(abs, weights)) < 1e4 * abs(
        whole
    )


@pytest.mark.parametrize("name", ["euler_maruyama", "dpdm_sde", "genie"])
def test_what_goes_by_time_says_so(name):
    network = ScoreNetwork(lambda x, t: x, TABLE, (1,))
    network = genie.exact_derivative(network) if name == "genie" else network
    with pytest.raises(ValueError, match="sigma / alpha = 80 is not that of Discrete at t=999"):
        Sampler(network, name, sigmas=SIGMAS)
    Sampler(network, name, sigmas=[10.0, 1.0, 0.1])


@pytest.mark.parametrize("times", [[1500, 500, -1], [999, 500, -0.5], [999, math.nan]])
def test_a_time_outside_raises(times):
    with pytest.raises(ValueError, match=r"no time of Discrete|times\[1\]=nan"):
        grids.from_times(TABLE, times)


@pytest.mark.parametrize("process", [VP(), VE(), BY_SCHEDULE["flow"]])
def test_a_run_may_not_begin_beyond_the_last_time(process):
    with pytest.raises(ValueError, match=r"t=1\.1 is no time of"):
        process.at(1.1)


ZERO = TABLE.zero_terminal_snr()


@pytest.mark.parametrize("grid", ["karras", "exponential", "lambda"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "lms", "dpmpp_sde"])
def test_zero_terminal_snr_from_4096(grid, name):
    """alpha_bar is floored at 2^-24, whose sigma is 4096."""
    made = grids.points(ZERO, 6, grid)
    assert made[0].ratio == pytest.approx(math.sqrt(2.0**24 - 1.0)) and made[0].t == 999.0
    assert made[-2] == ZERO.at(0.0) and made[-1].sigma == 0.0
    ratios = np.array([p.ratio for p in made[:-1]])
    spaced = ratios ** (1.0 / 7.0) if grid == "karras" else np.log(ratios)
    assert np.diff(spaced) == pytest.approx(np.diff(spaced).mean(), rel=1e-6)
    assert all(a.t > b.t for a, b in pairwise(made))
    network = ScoreNetwork(lambda x, t: 0.5 * x, ZERO, (1,), prediction="v")
    assert Sampler(network, name, 6, grid=grid).sample(2).samples.isfinite().all()


def test_zero_terminal_snr_between_its_last_timesteps():
    high, low = math.log(math.sqrt(2.0**24 - 1.0)), -float(ZERO.lam(998.0))
    assert -ZERO.lam(998.5) == pytest.approx(0.5 * (high + low))
    assert ZERO.t_of_lam(ZERO.lam(998.25)) == pytest.approx(998.25)
    assert ZERO.lam(999.0) == -math.inf and ZERO.at(999.0).alpha == 0.0
