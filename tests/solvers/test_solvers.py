"""Every solver through its plan and the float64 reference step: golden numbers and oracles."""

import math

import numpy as np
import pytest
import torch
from analytic import OF_X, PROCESSES, network
from oracles import golden, problems
from oracles.moments import output_moments
from oracles.problems import TG, TM
from oracles.solvers import named
from solver_checks import equals_oracle, keeps_its_level, name_of, run

from diffusion_engine import Sampler
from diffusion_engine.processes import Discrete, FlowMatching
from diffusion_engine.solvers.tableaus import NAMED
from diffusion_engine.solvers.unipc import corrector_weights, predictor_weights

CONFIGURATIONS = [
    *((name, {}) for name in OF_X),
    ("ddim", {"eta": 0.5}),
    ("ddpm", {"variance": "fixed_large"}),
    ("ddpm", {"variance": "fixed_large", "last_noise": True}),
    ("euler_ancestral", {"eta": 0.5, "s_noise": 1.1}),
    ("heun", {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}),
    ("dpm_2", {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}),
    ("euler", {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}),
    ("euler", {"s_churn": 3.0, "call_before_noise": True}),
    ("dpm_2_ancestral", {"eta": 0.5, "s_noise": 1.1}),
    ("dpm_fast", {"rest": 0}),
    ("dpm_fast", {"rest": 1, "eta": 1.0}),
    ("dpm_fast", {"eta": 0.6, "s_noise": 0.9}),
    ("dpmpp_2m", {"variant": "heun", "lower_order_final": False}),
    ("dpmpp_sde", {"eta": 0.5, "s_noise": 0.9}),
    ("dpmpp_sde", {"eta": 0.0}),
    ("dpmpp_sde", {"r": 0.3}),
    ("dpmpp_sde", {"eta": 0.7, "one_path": False}),
    ("dpmpp_2m_sde", {"eta": 0.5, "variant": "heun"}),
    ("dpmpp_2m_sde", {"eta": 0.0}),
    ("dpmpp_3m", {"kappa": 1.0, "lower_order_final": False}),
    ("dpmpp_3m", {"start": "heun"}),
    ("dpmpp_3m", {"variant": "heun"}),
    ("dpmpp_3m", {"lower_order_final": False, "euler_at_final": True}),
    ("dpmpp_2m_sde", {"lower_order_final": True}),
    ("dpmpp_3m_sde", {"eta": 0.5}),
    ("dpmpp_3m_sde", {"variant": "midpoint", "lower_order_final": True}),
    ("dpmpp_3m_sde", {"flipped": True, "euler_at_final": True}),
    ("er_sde", {"noise_scaler": "sde", "eta": 0.5, "s_noise": 0.9}),
    ("er_sde", {"noise_scaler": "sde_1", "max_order": 2}),
    ("er_sde", {"terms": 200, "variant": "newton"}),
    ("seeds_2", {"eta": 0.5, "s_noise": 0.9, "r": 1.0, "variant": "heun"}),
    ("seeds_3", {"eta": 0.5, "s_noise": 0.9, "r_1": 0.4, "r_2": 1.0}),
    ("sa_solver", {"predictor_order": 4, "eta": 0.7, "lower_order_final": False, "s_noise": 0.9}),
    ("sa_solver", {"predictor_order": 2, "corrector_order": 0, "s_tmin": 0.1, "s_tmax": 5.0}),
    ("sa_solver", {"pece": True, "final_corrector": 0, "tau_at": "start", "s_tmin": 0.3}),
    ("sa_solver", {"predictor_order": 2, "corrector_order": 2, "simple": True}),
    ("dpm_solver_2m", {"variant": "heun", "lower_order_final": False}),
    ("dpm_solver_3m", {"kappa": 1.0, "variant": "heun"}),
    ("dpm_solver_3m", {"start": "heun", "lower_order_final": False, "euler_at_final": True}),
    ("dpm_solver_sde", {"max_order": 1, "s_noise": 0.9}),
    ("dpm_solver_sde", {"eta": 0.5, "variant": "heun", "lower_order_final": True}),
    ("dpm_solver_sde", {"eta": 0.0}),
    ("dpmpp_3m_sde", {"kappa": 2.0}),
    ("dpmpp_3m_sde", {"eta": 0.0}),
    ("dpmpp_singlestep", {"max_order": 1, "eta": 1.0}),
    ("dpmpp_singlestep", {"max_order": 3, "begin": 1}),
    ("dpmpp_singlestep", {"max_order": 3, "variant": "heun", "begin": 2}),
    ("dpmpp_singlestep", {"max_order": 3, "variant": "heun", "eta": 0.5, "s_noise": 0.9}),
    ("dpmpp_singlestep", {"max_order": 3, "eta": 1.0, "fresh": True, "lower_order_final": False}),
    ("dpmpp_singlestep", {"max_order": 3, "variant": "heun", "eta": 1.0, "flipped": True}),
    ("dpm_solver_singlestep", {"variant": "heun", "lower_order_final": False}),
    ("dpm_solver_singlestep", {"max_order": 3}),
    ("dpm_solver_singlestep", {"max_order": 3, "variant": "heun", "begin": 1}),
    ("unipc", {"max_order": 1}),
    ("unipc", {"max_order": 2, "variant": "bh1"}),
    ("unipc", {"max_order": 3, "variant": "bh1", "lower_order_final": False}),
    ("unipc", {"max_order": 3, "corrector": False}),
    ("unipc", {"disable_corrector": (0, 2)}),
    ("unipc", {"predict_x0": False}),
    ("unipc", {"predict_x0": False, "max_order": 2, "variant": "bh1", "lower_order_final": False}),
    ("unipc", {"predict_x0": False, "corrector": False}),
    ("deis", {"max_order": 2}),
    ("deis", {"variant": "rhoab", "start": "heun"}),
    ("deis", {"variant": "logrho", "max_order": 3, "lower_order_final": True}),
    ("lms", {"max_order": 2}),
    ("lms", {"start": "heun"}),
    ("ipndm", {"max_order": 3}),
    ("ipndm", {"variable": True}),
    ("ipndm", {"lower_order_final": True}),
    ("ipndm", {"start": "blind"}),
    ("plms", {"mixes": "v"}),
    ("pndm", {"mixes": "v"}),
    ("pndm", {"published": True}),
    ("plms", {"max_order": 2}),
    ("plms", {"max_order": 1}),
    ("euler_maruyama", {"noise": False}),
    ("reverse_diffusion", {"noise": False}),
    ("ancestral", {"denoise": False}),
    ("ald", {"n_steps": 2, "snr": 0.3, "denoise": False}),
    ("lcm", {"scaling": 0.1, "original": 40}),
    ("exp_rk", {"tableau": NAMED["hochbruck_ostermann"](), "coordinates": "flow"}),
    ("res_multistep", {"eta": 0.6, "s_noise": 0.9}),
    ("gradient_estimation", {"gamma": 1.5, "coordinates": "flow"}),
    ("heunpp2", {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}),
    ("stork", {"published": True, "start": "half", "stages": 7}),
    ("stork", {"max_order": 4, "taylor": 3, "start": "half"}),
    ("stork", {"coordinates": "flow", "taylor": 1, "stages": 2}),
    ("euler_overshoot", {"eta": 0.5, "s_noise": 1.1, "relative": True}),
    ("dpmpp_2s_ancestral", {"eta": 0.5, "s_noise": 1.1, "coordinates": "edm"}),
    ("dpmpp_2s_ancestral", {"eta": 0.7, "coordinates": "flow"}),
    ("flow_sde", {"denoise": False}),
    ("flow_sde", {"noise_level": 0.0}),
    ("cps", {"noise_level": 1.0}),
]


def from_oracle(solver: str, options: dict) -> dict:
    options = {{"order": "max_order"}.get(name, name): value for name, value in options.items()}
    if solver == "deis":
        options["max_order"] = options.get("max_order", 3) + 1
    return options


def row_id(row):
    return "-".join(
        [row.solver, name_of(row.options), row.grid if hasattr(row, "grid") else "", str(row[3])]
    )


CPP = {"dtype": torch.float32, "backend": "cpp"}


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


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row_id(row), marks=pytest.mark.slow if row.n == 1000 else ())
        for row in golden.MOMENTS
    ],
)
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


SCHEDULES = ("vp", "subvp", "ve", "edm", "flow", "ddpm", "sd", "cosine")
# A run of one step or two is all start and end: with some signal at its start, and with none.
SHORT = ("vp", "flow")


@pytest.mark.parametrize("solver, options", [c for c in CONFIGURATIONS if named(c[0])], ids=name_of)
@pytest.mark.parametrize(
    "n, schedule",
    [
        pytest.param(n, schedule, marks=pytest.mark.slow if n < 7 and schedule not in SHORT else ())
        for n in (1, 2, 7)
        for schedule in SCHEDULES
    ],
)
def test_equals_oracle(solver, options, schedule, n):
    equals_oracle(solver, options, schedule, n)


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


@pytest.mark.parametrize(
    "one, steps, other, fine",
    [
        (("dpmpp_sde", {}), 5, ("dpmpp_singlestep", {"eta": 1.0, "lower_order_final": False}), 10),
        (("dpm_solver_2", {}), 5, ("dpm_solver_singlestep", {"lower_order_final": False}), 10),
        (
            ("deis", {"variant": "logrho", "max_order": 3}), 8,
            ("dpm_solver_3m", {"variant": "heun", "lower_order_final": False}), 8,
        ),
    ],
)  # fmt: skip
def test_two_roads_to_one_sampler(one, steps, other, fine):
    """Where the points that one makes are those that the other is given."""
    x = torch.linspace(-2.0, 2.0, 5, dtype=torch.float64)[:, None]
    draws = {i: torch.full((5, 1), 0.3 * i - 1.0, dtype=torch.float64) for i in range(20)}
    ends = []
    for (name, options), n in ((one, steps), (other, fine)):
        sampler = Sampler(
            network(TM, PROCESSES["lam"]), name, n, grid="lambda", end="t_min", dtype=torch.float64,
            backend="torch", batch_size=5, **options,
        )  # fmt: skip
        ends.append(sampler.sample(x=x, noised=True, noise=lambda i, m, seeds: draws[i]).samples)
    assert torch.allclose(*ends, rtol=1e-9, atol=1e-9)


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
    keeps_its_level(solver, options, schedule)
