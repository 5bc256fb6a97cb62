"""Restart runs are the paper's loop, tables like any other, and nearer to the data's law."""

import json
from functools import partial

import affine
import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE, OF_X, network, points_of
from oracles import restart as oracle
from oracles.problems import SCHEDULES, TG, TM, karras
from oracles.solvers import sample as ode
from solver_checks import size, to_oracle

from diffusion_engine import SOLVERS as KINDS
from diffusion_engine import Engine, Recipe, Sampler, Spec
from diffusion_engine.drivers import driver
from diffusion_engine.drivers.restart import PUBLISHED, Restart
from diffusion_engine.processes import VP
from diffusion_engine.testing import Gaussian, Mixture, labelled_mixture

ONE = [(0.1, 0.6, 3, 3)]
TWO = [(0.6, 2.5, 2, 2), (0.08, 0.5, 2, 4)]
REFERENCE = {"dtype": torch.float64, "backend": "torch"}
SOLVERS = {
    "ddim": {}, "heun": {}, "dpm_2": {}, "dpm_solver_2": {},
    "dpmpp_2m": {"lower_order_final": False}, "lms": {"max_order": 3},
}  # fmt: skip


def points(schedule, n=9):
    law = SCHEDULES[schedule]
    return [*(law.point_at_lam(-np.log(g)) for g in karras(n, 0.03, 50.0)), law.clean()]


@pytest.mark.parametrize(
    ("solver", "schedule", "intervals", "s_noise"),
    [
        ("heun", "edm", ONE, 1.003),
        *((solver, schedule, TWO, 1.0) for solver in SOLVERS for schedule in ("vp", "flow")),
    ],
)
def test_it_is_the_papers_loop(solver, schedule, intervals, s_noise):
    law, over, options = SCHEDULES[schedule], points(schedule), SOLVERS[solver]
    sampler = Sampler(
        network(TM, BY_SCHEDULE[schedule], label="sigma"), solver, times=points_of(over),
        driver=Restart(intervals, s_noise), **REFERENCE, **options,
    )  # fmt: skip
    x, normals = np.array([0.7, -1.3, 0.1]) * over[0].sigma, {}

    def noise(row, m, seeds):
        normals[row, m] = np.random.default_rng([row, m]).standard_normal(3, dtype=np.float32)
        return torch.from_numpy(normals[row, m])[:, None]

    found = sampler.sample(x=torch.from_numpy(x)[:, None], noised=True, noise=noise).samples[:, 0]
    left = iter([normals[at].astype(float) for at in sorted(normals)])
    run = partial(passed, solver, law, to_oracle(solver, options))
    wanted = oracle.restart(run, law, over, x, intervals, partial(next, left), s_noise)
    assert np.abs(found.numpy() - wanted).max() <= 1e-12 * size(sampler.plan()) * np.abs(x).max()
    assert next(left, None) is None and len(normals) == sum(one[2] for one in intervals)


def passed(solver, law, options, over, x, cut):
    return ode(solver, TM.denoiser, law, over, x, **options)


@pytest.mark.parametrize("schedule", ["vp", "edm", "flow"])
def test_its_law_on_gaussian_data_is_the_closed_form(schedule):
    law, over = SCHEDULES[schedule], points(schedule)
    net = network(TG, BY_SCHEDULE[schedule], label="sigma")
    sampler = Sampler(net, "ddim", times=points_of(over), driver=Restart(TWO))
    mean, covariance = affine.end(sampler.plan(), net)
    start = BY_SCHEDULE[schedule].prior_std(sampler.points[0]) ** 2
    wanted = oracle.gaussian(over, 0.3, 0.5, start, TWO, law)
    assert (mean[0], covariance[0, 0]) == pytest.approx(wanted, rel=1e-12)


def test_its_law_is_the_datas_for_many_steps():
    net = Gaussian(0.3, 0.5).network(VP())
    many = Sampler(net, "heun", 200, driver=Restart([(0.1, 1.0, 3, 60)]), grid="karras")
    mean, covariance = affine.end(many.plan(), net)
    assert (mean[0], covariance[0, 0]) == pytest.approx((0.3, 0.25), abs=2e-4)


@pytest.mark.parametrize("solver", [name for name in OF_X if not KINDS[name]().stochastic])
def test_every_deterministic_solver_loses_most_of_an_error_of_the_mean(solver):
    """That the prior is not quite the first state's law, and of the first steps: a jump forgets both."""
    net, errors = Gaussian(0.3, 0.5).network(VP()), []
    for led in (None, Restart([(0.1, 0.8, 2, 8)])):
        mean, covariance = affine.end(
            Sampler(net, solver, 24, grid="karras", driver=led).plan(), net
        )
        errors.append(abs(mean[0] - 0.3))
        assert covariance[0, 0] == pytest.approx(0.25, abs=0.06)
    assert 2.5 * errors[1] < errors[0]


def distance(samples, data=None):
    """The Wasserstein distance from the mixture, of its quantiles at equal shares."""
    data = data or Mixture()
    x = torch.linspace(-2.5, 2.5, 1 << 15, dtype=torch.float64)
    below = sum(
        w * torch.special.ndtr((x - m) / s)
        for w, m, s in zip(data.weights, data.means, data.stds, strict=True)
    )
    shares = (np.arange(samples.numel()) + 0.5) / samples.numel()
    wanted = np.interp(shares, below.numpy(), x.numpy())
    return float(np.abs(np.sort(samples.numpy().ravel()) - wanted).mean())


@pytest.mark.parametrize(
    ("solver", "steps", "high", "calls"),
    [("heun", 12, 0.6, 35), ("ddim", 6, 1.0, 14), ("ddim", 9, 1.0, 17)],
)
def test_it_comes_nearer_to_the_mixture_than_the_ode_at_as_many_calls(solver, steps, high, calls):
    net = Mixture().network(BY_SCHEDULE["edm"], (4096,))
    how = {"grid": "karras", **REFERENCE}
    again = Restart([(0.1, high, 2, 3 if high < 1.0 else 4)])
    led = Sampler(net, solver, steps, driver=again, **how).sample(1)
    per = 2 if solver == "heun" else 1
    alone = Sampler(net, solver, (calls + 1) // per, **how).sample(1)
    assert led.nfe == calls <= alone.nfe
    assert distance(led.samples) < 0.9 * distance(alone.samples)


class Mistaken(torch.nn.Module):
    """A network that errs at high noise, where it takes the mixture for one that is shifted."""

    def __init__(self, exact):
        super().__init__()
        self.exact = exact

    def forward(self, x, angle):
        wrong = (angle.tan() > 0.6)[:, None] * 0.25
        alpha = angle.cos()[:, None].to(x.dtype)
        return self.exact(x - alpha * wrong, angle) + wrong


def test_errors_of_the_network_contract():
    """The ODE carries to the end what was wrong above 0.6; each jump forgets some of it."""
    exact = Mixture().network(BY_SCHEDULE["edm"], (4096,))
    net = exact.with_module(Mistaken(exact.module))
    ends = [
        distance(Sampler(net, "heun", 24, grid="karras", driver=led, **REFERENCE).sample(1).samples)
        for led in (None, Restart([(0.1, 0.6, 1, 5)]), Restart([(0.1, 0.6, 5, 5)]))
    ]
    assert ends[0] > 1.4 * ends[1] > 1.4**2 * ends[2]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_runs_have_the_calls_of_the_papers_tables(name):
    steps, _ = PUBLISHED[name]
    sampler = Sampler(Gaussian().network(BY_SCHEDULE["edm"]), "heun", steps, driver=Restart(name))
    assert sampler.plan().nfe == int(name.rpartition("_")[2])


# --- a table like any other


def test_the_table_says_what_it_does():
    net = Gaussian().network(VP())
    plain = Sampler(net, "dpmpp_2m", 10).plan()
    sampler = Sampler(net, "dpmpp_2m", 10, driver="restart")
    plan = sampler.plan()
    assert plan.nfe == plain.nfe + 2 * 3 and plan.name == "dpmpp_2m with restart" and plan.exact
    jumps = [row for row in plan.rows[1:] if row.draws(0)]
    assert len(jumps) == 2 and all(row.state.ratio == pytest.approx(0.6) for row in jumps)
    assert len({row.key for row in plan.rows}) == len(plan.rows)
    # A history that spans a jump would be of another run.
    after = [plan.rows[plan.rows.index(row) + 1] for row in jumps]
    assert all({s for s, _ in row.new[0]} <= {"S0", "D"} for row in after)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_bits_are_the_same_alone_and_in_a_batch(backend):
    net = labelled_mixture(shape=(3,))
    sampler = Sampler(net, "dpmpp_2m", 8, driver=Restart(ONE), guidance=2.0, backend=backend)
    together = sampler.sample(5, seed=3, condition=[0, 1, 2, 0, 1]).samples
    for i in range(5):
        assert torch.equal(sampler.sample(1, seed=3 + i, condition=[i % 3]).samples[0], together[i])
    assert together.unique().numel() == together.numel()


def test_an_engine_runs_it_beside_others():
    net = labelled_mixture(shape=(3,))
    spec = Spec(solver="heun", steps=7, driver={"name": "restart", "options": {"intervals": ONE}})
    with Engine(net) as engine:
        other = engine.submit({"solver": "ddim", "steps": 30}, seeds=range(3), condition=1)
        result = engine.submit(spec, seeds=range(2), condition=2).result()
        other.result()
    alone = Sampler(net, "heun", 7, driver=Restart(ONE)).sample(2, condition=2)
    assert torch.equal(result.samples, alone.samples)


def test_a_recipe_replays():
    net = Gaussian().network(VP(), (4,))
    result = Sampler(net, "heun", 7, driver=driver("restart", intervals=TWO)).sample(3)
    said = json.loads(json.dumps(result.recipe))
    options = {"intervals": [list(i) for i in TWO], "s_noise": 1.0}
    assert said["driver"] == {"name": "restart", "options": options}
    Recipe.model_validate(said)
    assert torch.equal(Sampler.replay(net, said).samples, result.samples)


def test_a_run_from_an_image_passes_over_what_lies_above_it():
    net = Gaussian().network(VP(), (4,))
    x = torch.zeros(2, 4)
    both = Sampler(net, "ddim", 20, driver=Restart(TWO), grid="karras")
    below = Sampler(net, "ddim", 20, driver=Restart(TWO[1:]), grid="karras")
    start = next(p.t for p in both.points if p.ratio < 0.45)
    assert torch.equal(
        both.sample(x=x, start=start).samples, below.sample(x=x, start=start).samples
    )


def test_a_known_region_is_kept():
    net = Gaussian().network(VP(), (4,))
    known, mask = torch.full((1, 4), 0.7), torch.tensor([1, 1, 0, 0])
    made = Sampler(net, "ddim", 8, driver="restart").sample(1, mask=mask, known=known).samples
    assert torch.equal(made[0, 2:], known[0, 2:])


# --- what is wrong is told

NET = Gaussian().network(VP())


def made(intervals, solver="ddim", net=NET, **how):
    return Sampler(net, solver, 10, driver=Restart(intervals), **how)


BAD = {
    "nothing": (lambda: Restart([]), r"intervals=\[\]: give \(low, high, repeats, steps\) of each"),
    "name": (lambda: Restart("cifar10_vp_44"), "intervals='cifar10_vp_44': choose cifar10_vp_43, "),
    "noise": (lambda: Restart(ONE, s_noise="much"), "s_noise='much'"),
    "three": (lambda: Restart([(0.1, 0.6, 2)]), r"intervals=\(0.1, 0.6, 2\): give"),
    "order": (lambda: Restart([(0.6, 0.1, 2, 3)]), "low < high in sigma / alpha"),
    "zero": (lambda: Restart([(0.0, 0.1, 2, 3)]), "low=0: .* low above 0"),
    "repeats": (lambda: Restart([(0.1, 0.6, 0, 3)]), "repeats=0: give"),
    "steps": (lambda: Restart([(0.1, 0.6, 2, 1.5)]), "steps=1.5: give"),
    "above": (
        lambda: made([(0.1, 1e9, 1, 3)]),
        r"driver 'restart' cannot run this: its interval 0.1 to 1e\+09 goes from a point of the run up to a",
    ),
    "below": (lambda: made([(1e-9, 1e-8, 1, 3)]), "the nearest point is 0.010"),
    "twice": (lambda: made([(0.1, 0.6, 1, 3), (0.1001, 0.7, 1, 3)]), "two intervals begin at the point"),
    "stochastic": (lambda: made(ONE, "dpmpp_2m_sde"), "solver 'dpmpp_2m_sde' draws noise of its own"),
    "churn": (lambda: made(ONE, "euler", s_churn=2.0), "solver 'euler' draws noise of its own"),
    "encode": (lambda: made(ONE).encode(torch.zeros(1, 1)), "encode runs a solver's own table upwards"),
    "path": (lambda: made(ONE).sample(1, noise="brownian"), "noise='brownian': 'ddim with restart' draws"),
    "option": (lambda: driver("restart", level=3), "driver 'restart' takes no level"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told(case):
    make, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        make()


def test_a_velocity_is_not_noised_again():
    from diffusion_engine.testing import cld_mixture

    with pytest.raises(
        ValueError, match="it adds noise to x alone, and this process moves a velocity too"
    ):
        Sampler(cld_mixture(), "sscs", 5, driver=Restart(ONE))
