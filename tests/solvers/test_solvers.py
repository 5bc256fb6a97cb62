"""Every solver through its plan and the float64 reference step: golden numbers and oracles."""

import math

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE, OF_X, PROCESSES, against, network, points_of
from oracles import golden, problems
from oracles.moments import output_moments
from oracles.problems import SCHEDULES, TG, TM
from oracles.solvers import named
from oracles.solvers import sample as oracle

from diffusion_engine import SOLVERS, Sampler
from diffusion_engine.processes import Discrete, FlowMatching, grids
from diffusion_engine.solvers.unipc import corrector_weights, predictor_weights

CONFIGURATIONS = [
    *((name, {}) for name in OF_X),
    ("ddim", {"eta": 0.5}),
    ("ddpm", {"variance": "fixed_large"}),
    ("euler_ancestral", {"eta": 0.5, "s_noise": 1.1}),
    ("heun", {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}),
    ("dpm_2", {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}),
    ("dpmpp_2m", {"variant": "heun", "lower_order_final": False}),
    ("dpmpp_sde", {"eta": 0.5, "s_noise": 0.9}),
    ("dpmpp_sde", {"eta": 0.0}),
    ("dpmpp_2m_sde", {"eta": 0.5, "variant": "heun"}),
    ("dpmpp_2m_sde", {"eta": 0.0}),
    ("dpmpp_3m", {"kappa": 1.0, "lower_order_final": False}),
    ("dpmpp_3m", {"start": "heun"}),
    ("dpmpp_3m_sde", {"eta": 0.5}),
    ("dpmpp_3m_sde", {"kappa": 2.0}),
    ("dpmpp_3m_sde", {"eta": 0.0}),
    ("unipc", {"max_order": 1}),
    ("unipc", {"max_order": 2, "variant": "bh1"}),
    ("unipc", {"max_order": 3, "variant": "bh1", "lower_order_final": False}),
    ("unipc", {"max_order": 3, "corrector": False}),
    ("deis", {"max_order": 2}),
    ("deis", {"variant": "rhoab", "start": "heun"}),
    ("lms", {"max_order": 2}),
    ("lms", {"start": "heun"}),
    ("ipndm", {"max_order": 3}),
    ("ipndm", {"variable": True}),
    ("plms", {"max_order": 2}),
    ("plms", {"max_order": 1}),
    ("euler_maruyama", {"noise": False}),
    ("reverse_diffusion", {"noise": False}),
    ("ancestral", {"denoise": False}),
    ("ald", {"n_steps": 2, "snr": 0.3, "denoise": False}),
    ("lcm", {"scaling": 0.1, "original": 40}),
]
# What an oracle's options are called, and the defaults that differ: its own are the papers'. The degree of
# DEIS' polynomials is one below the number of terms.
TO_ORACLE = {
    "deis": lambda o: {"variant": "tab"} | o | {"order": o.get("order", 4) - 1},
    "unipc": lambda o: {"order": 3} | o,
    "dpmpp_3m": lambda o: {"kappa": 2.0} | o,
    "lms": lambda o: o | {"denoised_at_zero": False},
    "ipndm": lambda o: o | {"denoised_at_zero": False},
    "plms": lambda o: o | {"denoised_at_zero": False},
    "euler_maruyama": lambda o: {"ode": True} if o else {},
    "reverse_diffusion": lambda o: {"ode": True} if o else {},
}


def to_oracle(solver: str, options: dict) -> dict:
    options = {{"max_order": "order"}.get(name, name): value for name, value in options.items()}
    return TO_ORACLE.get(solver, lambda o: o)(options)


def from_oracle(solver: str, options: dict) -> dict:
    options = {{"order": "max_order"}.get(name, name): value for name, value in options.items()}
    if solver == "deis":
        options["max_order"] = options.get("max_order", 3) + 1
    return options


def name_of(value):
    if isinstance(value, dict):
        return ",".join(f"{key}={option}" for key, option in value.items()) or "default"
    return getattr(value, "solver", None)


def row_id(row):
    return "-".join(
        [row.solver, name_of(row.options), row.grid if hasattr(row, "grid") else "", str(row[3])]
    )


def skip_unsuited(solver, options, process, points):
    made = SOLVERS[solver](**options)
    objection = against(made, points_of(points), network(TM, process))
    if objection:
        pytest.skip(objection)


REFERENCE = {"dtype": torch.float64, "backend": "torch"}
CPP = {"dtype": torch.float32, "backend": "cpp"}


def run(solver, options, process, points, x, problem=TM, noise=None, how=REFERENCE):
    """The engine's samples from states x [n], in float64 on the reference, and the plan."""
    exact = network(problem, process, label="sigma")  # churn goes beyond the process's times
    sampler = Sampler(
        exact, solver, times=points_of(points), batch_size=len(x), **how, **options
    )  # fmt: skip
    made = sampler.sample(x=torch.as_tensor(x)[:, None], noised=True, noise=noise).samples[:, 0]
    return made, sampler.plan()


def size(plan) -> float:
    """The largest weight of a plan: what rounding errors are measured against."""
    return max(abs(w) for row in plan.rows for update in row.new.values() for _, w in update)


@pytest.mark.parametrize("row", golden.END_VALUES, ids=row_id)
def test_end_value(row):
    _, points = problems.grid(row.grid, row.n)
    options = from_oracle(row.solver, row.options)
    end, _ = run(row.solver, options, PROCESSES[row.grid], points, np.array([row.x_T]))
    assert float(end) == pytest.approx(row.value, rel=0, abs=row.tolerance)
    single, _ = run(row.solver, options, PROCESSES[row.grid], points, np.array([row.x_T]), how=CPP)
    assert float(single) == pytest.approx(row.value, rel=0, abs=max(1e-6, row.tolerance))


@pytest.mark.parametrize(
    "row", golden.ERRORS, ids=lambda r: f"{r.solver}-{name_of(r.options)}-{r.x_T}"
)
def test_convergence(row):
    errors = []
    for n in golden.ERROR_STEPS:
        _, points = problems.grid("lam", n)
        options = from_oracle(row.solver, row.options)
        end, _ = run(row.solver, options, PROCESSES["lam"], points, np.array([row.x_T]))
        errors.append(abs(float(end) - golden.EXACT_END[row.x_T]))
    assert errors == pytest.approx(row.errors, rel=5.1e-3)  # three digits are printed
    if row.slope is not None:
        assert math.log2(errors[-2] / errors[-1]) == pytest.approx(row.slope, abs=0.15)


@pytest.mark.parametrize("row", golden.MOMENTS, ids=row_id)
def test_moments(row):
    """Mean and variance on Gaussian data, exactly: the sampler is affine in x and in its draws."""
    _, points = problems.grid(row.grid, row.n)
    options = from_oracle(row.solver, row.options)

    def sampler(x, noise):
        made = {}

        def source(i, m, seeds):
            if (i, m) not in made:
                made[i, m] = torch.as_tensor(noise(i, m))[:, None]
            return made[i, m]

        out, _ = run(row.solver, options, PROCESSES[row.grid], points, x, TG, source)
        return out.numpy()

    mean, variance = output_moments(sampler, row.variance_T, max_draws=row.n)
    assert mean == pytest.approx(row.mean, abs=row.tolerance)
    assert variance == pytest.approx(row.variance, abs=row.tolerance)


@pytest.mark.parametrize("solver, options", [c for c in CONFIGURATIONS if named(c[0])], ids=name_of)
@pytest.mark.parametrize("schedule", ["vp", "subvp", "ve", "edm", "flow", "ddpm", "sd", "cosine"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_equals_oracle(solver, options, schedule, n):
    """Same end as the paper's loop, from the same states with the same normals, to clean data."""
    process = BY_SCHEDULE[schedule]
    if solver == "deis" and schedule in ("ddpm", "sd", "cosine"):
        options = {"variant": "rhoab"} | options  # the oracle's tAB differentiates the schedule
    top = 800 if schedule in ("ddpm", "sd", "cosine") else process.t_max * 0.99
    t = top * np.linspace(1.0, 0.05, n) ** 1.5
    t = np.round(t) if top == 800 else t
    points = [*map(SCHEDULES[schedule].point, t), SCHEDULES[schedule].clean()]
    skip_unsuited(solver, options, process, points)
    x = np.array([0.7, -1.3, 0.1]) * process.prior_std(process.at(float(t[0])))
    draws = {}

    def by_row(i, m, seeds):
        z = np.random.default_rng([i, m]).standard_normal(len(x), dtype=np.float32).astype(float)
        draws[i, m] = z
        return torch.from_numpy(z)[:, None]

    ours, plan = run(solver, options, process, points, x, TM, by_row)
    # The engine asks for normals row by row in the order the oracle asks for them step by step.
    queue = [draws[key] for key in sorted(draws)]
    theirs = oracle(
        solver, TM.denoiser, SCHEDULES[schedule], points, x, lambda step, stage: queue.pop(0),
        **to_oracle(solver, options),
    )  # fmt: skip
    assert not queue, "the engine drew more than the oracle"
    scale = max(size(plan) * np.abs(x).max(), np.abs(theirs).max())
    assert np.abs(ours.numpy() - theirs).max() <= 1e-12 * scale


@pytest.mark.parametrize("process", [FlowMatching(), Discrete.linear().zero_terminal_snr()])
def test_without_noise_from_no_signal_to_clean_data(process):
    """h is infinite in the first step and in the last, and eta h is 0."""
    exact = network(TM, process)
    still, plain = (
        Sampler(exact, name, 6, grid="uniform", dtype=torch.float64, backend="torch", **options)
        for name, options in (
            ("dpmpp_2m_sde", {"eta": 0.0}), ("dpmpp_2m", {"lower_order_final": False})
        )
    )  # fmt: skip
    assert still.points[0].alpha == 0.0 and still.points[-1].sigma == 0.0
    assert not still.solver.stochastic
    ends = [sampler.sample(5).samples for sampler in (still, plain)]
    assert torch.allclose(*ends, rtol=1e-12, atol=1e-12)
    assert (
        Sampler(exact, "dpmpp_3m_sde", 6, grid="uniform", eta=0.0)
        .sample(5)
        .samples.isfinite()
        .all()
    )


@pytest.mark.parametrize("order, variant, b, rho_p, rho_c, big_b", golden.UNIPC_COEFFICIENTS)
def test_unipc_coefficients(order, variant, b, rho_p, rho_c, big_b):
    nodes = [-1.0, -2.0][: order - 1]
    rho, scale = predictor_weights(nodes, 0.5, variant)
    assert rho == pytest.approx(rho_p, abs=1e-8)
    assert scale == pytest.approx(big_b, abs=1e-8)
    rho, _ = corrector_weights(nodes, 0.5, variant)
    assert rho == pytest.approx(rho_c, abs=1e-8)


@pytest.mark.parametrize("solver, options", CONFIGURATIONS, ids=name_of)
@pytest.mark.parametrize("schedule", ["vp", "edm", "flow", "ddpm"])
def test_row_algebra(solver, options, schedule):
    """A network that knows x0 keeps it, and slot 0 keeps its noise level, to 1e-12 (M.2)."""
    process = BY_SCHEDULE[schedule]
    t = np.round(np.linspace(0.95, 0.05, 6) * process.t_max, 3)
    if schedule == "ddpm":
        t = np.round(t)
    points = grids.from_times(process, [*t, process.clean.t])
    skip_unsuited(solver, options, process, points)
    sampler = Sampler(network(TM, process), solver, times=points, **options)
    plan = sampler.plan()
    if not plan.exact:
        pytest.skip("exact to second order in the step only")
    slots = plan.slots
    signal, noise = np.zeros(slots), np.zeros((slots, 1))
    signal[0], noise[0] = plan.rows[0].state.alpha, plan.rows[0].state.sigma
    for row in plan.rows[1:]:
        mix, d, drawn = np.eye(slots), np.zeros(slots), np.zeros((slots, 2))
        for k, update in row.new.items():
            mix[k] = [update[f"S{j}"] for j in range(slots)]
            d[k], drawn[k] = update["D"], [update["z0"], update["z1"]]
        signal, noise = mix @ signal + d, np.hstack([mix @ noise, drawn])
        if row.state is None:
            continue
        assert abs(signal[0] - row.state.alpha) <= 1e-12 * max(1.0, np.abs(mix[0] * signal).max())
        keeps_level = SOLVERS[solver].keeps_noise and not {"s_noise", "variance"} & set(options)
        if keeps_level:
            level = math.sqrt(float((noise[0] ** 2).sum()))
            assert level == pytest.approx(row.state.sigma, abs=1e-12 * max(1.0, row.state.sigma))
