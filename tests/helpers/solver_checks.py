"""What a solver of the table fulfils: its oracle's end, its noise level, what it says of its draws."""

import math

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE, against, network, points_of
from oracles.problems import SCHEDULES, TM
from oracles.solvers import sample as oracle

from diffusion_engine import SOLVERS, Sampler
from diffusion_engine.processes import grids
from diffusion_engine.testing import exact_network


def as_it_is(options):
    return {{"order": "max_order"}.get(name, name): value for name, value in options.items()}


# What an oracle's options are called, and the defaults that differ: its own are the papers'. The degree of
# DEIS' polynomials is one below the number of terms.
TO_ORACLE = {
    "deis": lambda o: {"variant": "tab"} | o | {"order": o.get("order", 4) - 1},
    "unipc": lambda o: {"order": 3} | o,
    "dpmpp_3m": lambda o: {"kappa": 2.0} | o,
    "dpm_solver_3m": lambda o: {"kappa": 2.0} | o,
    "er_sde": as_it_is,
    "dpm_solver_sde": as_it_is,
    "dpmpp_singlestep": as_it_is,
    "dpm_solver_singlestep": as_it_is,
    "stork": as_it_is,
    "lms": lambda o: o | {"denoised_at_zero": False},
    "ipndm": lambda o: o | {"denoised_at_zero": False},
    "plms": lambda o: o | {"denoised_at_zero": False},
    "pndm": lambda o: o | {"denoised_at_zero": False},
    "euler_maruyama": lambda o: {"ode": True} if o else {},
    "reverse_diffusion": lambda o: {"ode": True} if o else {},
}


def to_oracle(solver: str, options: dict) -> dict:
    options = {{"max_order": "order"}.get(name, name): value for name, value in options.items()}
    return TO_ORACLE.get(solver, lambda o: o)(options)


def name_of(value):
    if isinstance(value, dict):
        return ",".join(f"{key}={option}" for key, option in value.items()) or "default"
    return getattr(value, "solver", None)


def skip_unsuited(solver, options, process, points):
    made = SOLVERS[solver](**options)
    objection = against(made, points_of(points), network(TM, process))
    if objection:
        pytest.skip(objection)


# Options with which slot 0 has another noise level than its point.
FREE = {"s_noise", "variance", "call_before_noise"}

REFERENCE = {"dtype": torch.float64, "backend": "torch"}


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


def equals_oracle(solver, options, schedule, n):
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
    assert not queue, f"{solver} drew {len(queue)} normals more than its oracle"
    scale = max(size(plan) * np.abs(x).max(), np.abs(theirs).max())
    off = np.abs(ours.numpy() - theirs).max() / scale
    assert off <= 1e-12, (
        f"{solver} is {off:.1e} of the greatest number from its oracle in {n} steps on {schedule}. Far off, "
        "one of them differs from the paper; near, a difference of nearly equal numbers loses digits in one"
    )


def keeps_its_level(solver, options, schedule):
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
        off = abs(signal[0] - row.state.alpha)
        assert off <= 1e-12 * max(1.0, np.abs(mix[0] * signal).max()), (
            f"row {row.key} of {solver} leaves {signal[0]:g} x0 at alpha = {row.state.alpha:g}; where the "
            "paper's steps do, the solver says exact = False"
        )
        keeps_level = SOLVERS[solver].keeps_noise and not FREE & set(options)
        if keeps_level:
            level = math.sqrt(float((noise[0] ** 2).sum()))
            assert level == pytest.approx(row.state.sigma, abs=1e-12 * max(1.0, row.state.sigma)), (
                f"row {row.key} of {solver} leaves noise of {level:g} at sigma = {row.state.sigma:g}; where "
                "the paper's steps do, the solver says keeps_noise = False"
            )


def says_whether_it_draws(name):
    """`stochastic` is for lists; from a whole state a plan's normals are fresh noise."""
    sampler = Sampler(exact_network(name), name, 4)
    process = sampler.network.process
    start = "whole" if process.parts == 2 else "state"
    plan = sampler.solver.plan(sampler.network.parameterisation, sampler.points, start)
    assert sampler.solver.stochastic is (plan.normals > 0)
