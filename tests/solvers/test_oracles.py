"""The oracles against closed forms, each other and every golden number that concerns them."""

import math

import numpy as np
import pytest
from analytic import OF_X
from oracle_checks import samples_a_point_mass_exactly, tm_end
from oracles import golden, problems
from oracles.adams import rho_weights, t_weights
from oracles.common import differences, first_order, phi, steps
from oracles.moments import output_moments
from oracles.problems import SCHEDULES, TG, TM
from oracles.solvers import named, oracle, sample
from oracles.unipc import corrector_weights, predictor_weights, unipc_system

from diffusion_engine import SOLVERS

# Those that keep a known x0 and the noise level, as most do: they have the invariants below.
KEEPING = [
    name for name in OF_X if named(name) and SOLVERS[name].exact and SOLVERS[name].keeps_noise
]
BY_TIME = {"deis", "pndm", "tcd"}  # go by t, and so see more than x / alpha and the ratio
ON_EPS = {"vdm", "pndm"}  # divide by alpha, which is 0 at the start of flow matching
BY_PLACE = {
    "tcd",
    "deis",
    "ipndm",
    "plms",
    "dpmpp_singlestep",
    "dpm_solver_singlestep",
    "res_multistep",
    "gradient_estimation",
    "heunpp2",
}  # keep a first prediction that interpolation in lam cannot reach, or count their points from the first
CONFIGURATIONS = [
    *((name, {}) for name in KEEPING),
    ("ddim", {"eta": 0.5}),
    ("euler_ancestral", {"eta": 0.5, "s_noise": 1.1}),
    ("heun", {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}),
    ("dpm_2", {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}),
    ("dpmpp_2m", {"variant": "heun", "lower_order_final": False}),
    ("dpmpp_sde", {"eta": 0.5, "s_noise": 0.9}),
    ("dpmpp_2m_sde", {"eta": 0.5, "variant": "heun"}),
    ("dpmpp_3m", {"kappa": 2.0, "lower_order_final": False}),
    ("dpmpp_3m_sde", {"eta": 0.5, "kappa": 2.0}),
    ("unipc", {"order": 1}),
    ("unipc", {"order": 3, "variant": "bh1", "lower_order_final": False}),
    ("unipc", {"order": 3, "corrector": False}),
    ("deis", {"order": 1}),
    ("deis", {"variant": "rhoab"}),
    ("lms", {"denoised_at_zero": False}),
    ("lms", {"start": "heun"}),
    ("dpmpp_3m", {"start": "heun"}),
    ("ipndm", {"denoised_at_zero": False}),
    ("plms", {"order": 2}),
]


def option_id(value):
    if isinstance(value, dict):
        return ",".join(f"{key}={option}" for key, option in value.items()) or "default"
    return None


def row_id(row):
    numbers = [str(part) for part in row[2:5] if not isinstance(part, tuple | None)]
    return "-".join([row.solver, option_id(row.options), *numbers])


def seeded_noise(shape):
    def noise(step, stage):
        return np.random.default_rng([step, stage]).standard_normal(shape)

    return noise


@pytest.mark.parametrize("row", golden.END_VALUES, ids=row_id)
def test_end_value(row):
    value = tm_end(row.solver, row.options, row.grid, row.n, row.x_T)
    assert value == pytest.approx(row.value, rel=0, abs=row.tolerance)


@pytest.mark.parametrize("row", golden.ERRORS, ids=row_id)
def test_errors_and_slope(row):
    errors = [
        abs(tm_end(row.solver, row.options, "lam", n, row.x_T) - golden.EXACT_END[row.x_T])
        for n in golden.ERROR_STEPS
    ]
    assert errors == pytest.approx(row.errors, rel=5.1e-3)  # three digits are printed
    if row.slope is not None:
        assert math.log2(errors[-2] / errors[-1]) == pytest.approx(row.slope, abs=0.15)


@pytest.mark.parametrize("row", golden.MOMENTS, ids=row_id)
def test_moments(row):
    schedule, points = problems.grid(row.grid, row.n)

    def sampler(x, noise):
        return sample(row.solver, TG.denoiser, schedule, points, x, noise, **row.options)

    mean, variance = output_moments(sampler, row.variance_T, 2 * row.n)
    assert (mean, variance) == pytest.approx((row.mean, row.variance), rel=0, abs=row.tolerance)


@pytest.mark.parametrize(
    ("order", "variant", "b", "rho_p", "rho_c", "scale"), golden.UNIPC_COEFFICIENTS
)
def test_unipc_coefficients(order, variant, b, rho_p, rho_c, scale):
    nodes = [*(-1.0 * k for k in range(1, order)), 1.0]
    if b is not None:
        assert unipc_system(nodes, golden.UNIPC_H, variant)[1] == pytest.approx(b, abs=1e-8)
    assert predictor_weights(nodes, golden.UNIPC_H, variant)[0] == pytest.approx(rho_p, abs=1e-8)
    found, found_scale = corrector_weights(nodes, golden.UNIPC_H, variant)
    assert found == pytest.approx(rho_c, abs=1e-8)
    assert found_scale == pytest.approx(scale, abs=1e-8)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_deis_coefficients(degree):
    vp = SCHEDULES["vp"]
    nodes = [vp.point(t) for t in golden.DEIS_TIMES[: degree + 1]]
    t = vp.point(golden.DEIS_T)
    assert t.alpha / nodes[0].alpha == pytest.approx(golden.DEIS_PSI, abs=1e-8)
    tab = [t.alpha * weight for weight in t_weights(nodes, t, vp)]
    assert tab == pytest.approx(golden.DEIS_COEFFICIENTS["tab"][degree], abs=1e-8)
    assert rho_weights(nodes, t) == pytest.approx(
        golden.DEIS_COEFFICIENTS["rhoab"][degree], abs=1e-8
    )


def test_one_step():
    vp, row = SCHEDULES["vp"], golden.ONE_STEP
    s, t = vp.point(row["s"]), vp.point(row["t"])
    assert t.lam - s.lam == pytest.approx(row["h"], abs=1e-8)
    by_denoised = first_order(1.0, s, t, 0.0), first_order(0.0, s, t, 1.0)
    assert by_denoised == pytest.approx(row["denoised_form"], abs=1e-8)
    # eps = 0 means denoised = x / alpha_s, and x = 0 means denoised = -sigma_s eps / alpha_s
    by_eps = first_order(1.0, s, t, 1 / s.alpha), first_order(0.0, s, t, -s.sigma / s.alpha)
    assert by_eps == pytest.approx(row["eps_form"], abs=1e-8)
    for solver, options in (("ddim", {"eta": 1.0}), ("ddpm", {}), ("euler_ancestral", {})):
        run = [
            sample(solver, lambda x, p: 0 * x, vp, [s, t], 0.0, lambda k, m, z=z: z, **options)
            for z in (0.0, 1.0)
        ]
        assert run[1] - run[0] == pytest.approx(row["ancestral_noise"], abs=1e-8)


@pytest.mark.parametrize(("kappa", "slopes"), golden.THIRD_ORDER_SLOPES.items())
def test_third_order_needs_kappa_2(kappa, slopes):
    errors = []
    for n in (20, 40, 80, 160, 320, 640):
        schedule, points = problems.grid("lam", n)
        x, history = np.array(-1.3), []
        for step, s, t in steps(points):
            history.insert(0, (s, TM.denoiser(x, s)))
            if step < 2:  # exact to rounding, so that the start does not limit the order
                lams = np.linspace(s.lam, t.lam, 6401 // n)
                fine = [schedule.point_at_lam(lam) for lam in lams]
                x = sample("dpm_solver_3", TM.denoiser, schedule, fine, x)
                continue
            h = t.lam - s.lam
            d1, d2 = differences(history[:3], h, kappa)
            x = first_order(x, s, t, history[0][1])
            x = x + t.alpha * h * (phi(2, -h) * d1 + phi(3, -h) * d2)
        errors.append(abs(float(x) - golden.EXACT_END[-1.3]))
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(slopes, abs=0.01)


@pytest.mark.parametrize(("name", "method", "at", "value"), golden.SCHEDULE_VALUES)
def test_schedule_value(name, method, at, value):
    schedule = SCHEDULES[name]
    found = {
        "lam": schedule.lam,
        "alpha": schedule.alpha,
        "sigma": schedule.sigma,
        "ratio": lambda t: np.exp(-schedule.lam(t)),
        "alpha_bar": lambda t: schedule.alpha(t) ** 2,
    }[method](at)
    digits = 5e-9 if name == "vp" else 5e-7
    assert found == pytest.approx(value, rel=digits, abs=digits)


def test_grids():
    _, points = problems.grid("lam", 10)
    assert [p.t for p in points] == pytest.approx(golden.LAM_GRID_10, abs=1e-8)
    _, points = problems.grid("edm", 18)
    assert [p.sigma for p in points] == pytest.approx([*golden.KARRAS_18, 0], rel=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_inverts_and_agrees_with_itself(name):
    schedule = SCHEDULES[name]
    if isinstance(schedule, problems.DDPMTable):
        t = np.linspace(0, 999, 4000)
    else:
        t = np.geomspace(1e-5, 0.999, 4000)
    lam = schedule.lam(t)
    assert np.all(np.diff(lam) < 0)
    assert schedule.t_of_lam(lam) == pytest.approx(t, rel=1e-11, abs=1e-11)
    assert np.log(schedule.alpha(t) / schedule.sigma(t)) == pytest.approx(lam, abs=1e-9)


@pytest.mark.parametrize("name", ["vp", "subvp", "ve", "edm", "flow"])
def test_ratio_rate_is_the_derivative(name):
    schedule, t, d = SCHEDULES[name], np.linspace(0.01, 0.9, 50), 1e-6
    slope = (np.exp(-schedule.lam(t + d)) - np.exp(-schedule.lam(t - d))) / (2 * d)
    assert schedule.ratio_rate(t) == pytest.approx(slope, rel=1e-6)


def test_beyond_a_discrete_table_a_level_has_the_nearest_timestep():
    with pytest.raises(ValueError, match="outside the table"):
        SCHEDULES["ddpm"].t_of_lam(-9.0)
    for lam, t in ((-9.0, 999.0), (9.0, 0.0)):
        at = SCHEDULES["ddpm"].point_at_lam(lam)
        assert (at.t, at.lam, math.log(at.alpha / at.sigma)) == pytest.approx((t, lam, lam))


@pytest.mark.parametrize("problem", [TG, TM])
@pytest.mark.parametrize("name", ["vp", "subvp", "flow"])
def test_eps_and_denoised_recombine_to_x(problem, name):
    x = np.linspace(-3, 3, 31)
    for t in (0.0, 1e-3, 0.3, 1.0):
        p = SCHEDULES[name].point(t)
        denoised = problem.denoised(x, p.alpha, p.sigma)
        eps = problem.eps(x, p.alpha, p.sigma)
        assert p.alpha * denoised + p.sigma * eps == pytest.approx(x, abs=1e-12)


def test_gaussian_matches_its_closed_form():
    alpha, sigma, x = 0.6, 0.7, np.linspace(-2, 2, 9)
    variance = alpha**2 * 0.25 + sigma**2
    assert TG.eps(x, alpha, sigma) == pytest.approx(sigma * (x - alpha * 0.3) / variance)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_has_an_oracle(name):
    assert callable(oracle(name))


def test_a_missing_oracle_says_what_to_write():
    said = r"has 0 functions nope.* write .* nope\(denoiser, points, x, noise=None, \*\*options\)"
    with pytest.raises(LookupError, match=said):
        oracle("nope")


@pytest.mark.parametrize(("name", "options"), CONFIGURATIONS, ids=option_id)
def test_a_point_mass_is_sampled_exactly(name, options):
    samples_a_point_mass_exactly(name, options)


@pytest.mark.parametrize(
    ("name", "options"),
    [pair for pair in CONFIGURATIONS if pair[0] not in BY_TIME or "variant" in pair[1]],
    ids=option_id,
)
def test_scaling_the_state_changes_nothing(name, options):
    """Every solver but tAB, which interpolates in t, sees only x / alpha and the ratio."""
    edm, edm_points = problems.grid("edm", 9)
    vp = SCHEDULES["vp"]
    vp_points = [*(vp.point_at_lam(p.lam) for p in edm_points[:-1]), vp.clean()]
    x_bar = 80 * np.array([-1.1, 0.2, 0.9])
    noise = seeded_noise(3)
    by_edm = sample(name, TM.denoiser, edm, edm_points, x_bar, noise, **options)
    x = vp_points[0].alpha * x_bar
    by_vp = sample(name, TM.denoiser, vp, vp_points, x, noise, **options)
    assert by_vp == pytest.approx(by_edm, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("euler", {}), ("ddim", {})),
        (("euler_ancestral", {"eta": 0.6}), ("ddim", {"eta": 0.6})),
        (("ddpm", {"variance": "fixed_small"}), ("ddim", {"eta": 1.0})),
        (("dpmpp_2m_sde", {"eta": 0.0}), ("dpmpp_2m", {"lower_order_final": False})),
        (("lms", {"order": 1}), ("ddim", {})),
        (("ipndm", {"variable": True}), ("lms", {})),
        (("ipndm", {"order": 1}), ("ddim", {})),
        (("deis", {"order": 0}), ("ddim", {})),
        (("unipc", {"order": 1, "corrector": False}), ("ddim", {})),
        (("deis", {"order": 2, "variant": "rhoab"}), ("lms", {"order": 3})),
        (
            ("unipc", {"order": 2, "corrector": False, "variant": "bh2"}),
            ("dpmpp_2m", {"variant": "midpoint"}),
        ),
    ],
    ids=lambda pair: f"{pair[0]}({option_id(pair[1])})",
)
def test_two_roads_to_one_sampler(one, other):
    schedule, points = problems.grid("lam", 8)
    x, noise = np.array([-1.3, 0.1, 0.7]), seeded_noise(3)
    runs = [
        sample(name, TM.denoiser, schedule, points, x, noise, **options)
        for name, options in (one, other)
    ]
    assert runs[0] == pytest.approx(runs[1], abs=1e-11)


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "euler_ancestral"])
def test_sde_solvers_approach_the_data_variance(name):
    """Weak convergence on a Gaussian: finer grids land nearer to variance 0.25."""
    errors = []
    for n in (40, 80):
        schedule, points = problems.grid("edm", n)

        def sampler(x, noise, schedule=schedule, points=points):
            return sample(name, TG.denoiser, schedule, points, x, noise)

        mean, variance = output_moments(sampler, 6400, 2 * n)
        assert mean == pytest.approx(0.3, abs=1e-4)
        errors.append(abs(variance - 0.25))
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("name", ["dpm_2", "plms"])
def test_second_order_on_the_mixture(name):
    errors = [abs(tm_end(name, {}, "lam", n, 0.7) - golden.EXACT_END[0.7]) for n in (80, 160)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize(("name", "options"), CONFIGURATIONS, ids=option_id)
def test_noise_free_end_returns_the_last_estimate(name, options):
    schedule, points = problems.grid("edm", 6)
    calls = []

    def denoiser(x, point):
        calls.append(TM.denoiser(x, point))
        return calls[-1]

    x = 80 * np.array([-0.3, 1.0])
    out = sample(name, denoiser, schedule, points, x, seeded_noise(2), **options)
    if options.get("denoised_at_zero", True):
        assert out == pytest.approx(calls[-1], abs=1e-12)
    assert np.all(np.isfinite(out))


@pytest.mark.parametrize(
    ("name", "options"), [pair for pair in CONFIGURATIONS if pair[0] not in ON_EPS], ids=option_id
)
def test_signal_free_start_is_finite(name, options):
    """Flow matching starts at alpha = 0, lam = -inf; the run then forgets its first step."""
    flow = SCHEDULES["flow"]
    points = problems.t_points(flow, 6, 1.0, 0.0)
    assert (points[0].lam, points[-1].lam) == (-math.inf, math.inf)
    x = np.array([-0.3, 1.0])
    with np.errstate(all="raise", under="ignore"):
        out = sample(name, TM.denoiser, flow, points, x, seeded_noise(2), **options)
    assert np.all(np.isfinite(out))


@pytest.mark.parametrize("name", [name for name in KEEPING if name not in BY_PLACE | ON_EPS])
def test_signal_free_start_is_forgotten(name):
    """Interpolation in lam or ratio cannot reach the first prediction: the run begins anew."""
    flow, x, noise = SCHEDULES["flow"], np.array([-0.3, 1.0]), seeded_noise(2)
    points = problems.t_points(flow, 6, 1.0, 0.05)
    whole = sample(name, TM.denoiser, flow, points, x, noise)
    x = sample(name, TM.denoiser, flow, points[:2], x, noise)
    rest = sample(
        name, TM.denoiser, flow, points[1:], x, lambda step, stage: noise(step + 1, stage)
    )
    assert rest == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde", "deis"])
def test_unknown_variant_is_refused(name):
    schedule, points = problems.grid("lam", 3)
    with pytest.raises(ValueError, match="variant='cubic': use"):
        sample(
            name, TM.denoiser, schedule, points, np.array(0.7), seeded_noise(()), variant="cubic"
        )
