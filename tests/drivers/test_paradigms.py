"""Parallel in time: the published iteration, ends of every solver, bits, rounds, two processes, errors."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE, OF_X, network
from oracles import picard
from oracles.problems import TM, grid

from diffusion_engine import Sampler, ScoreNetwork, Spec, zoo
from diffusion_engine.drivers.links import links
from diffusion_engine.drivers.paradigms import ParaDiGMS
from diffusion_engine.drivers.parataa import Anderson, ParaTAA
from diffusion_engine.drivers.window import Window
from diffusion_engine.processes import VP, Point
from diffusion_engine.testing import Mixture, exact_network

DOUBLE = {"dtype": torch.float64, "backend": "torch"}
# [calc] of the mixture, DDIM, 100 steps even in lambda, from x_T = 0.7, all of the run in the window.
PUBLISHED = [
    1.3e-1, 2.2e-2, 8.3e-3, 2.2e-3, 4.0e-4, 5.5e-5, 6.2e-6, 5.8e-7, 4.7e-8, 3.3e-9, 2.1e-10, 1.1e-11,
    5.7e-13, 2.6e-14,
]  # fmt: skip
FORMS = {
    "paradigms": ParaDiGMS(tolerance=1e-12),
    "paradigms frozen window": ParaDiGMS(window=3, tolerance=1e-12, slope="frozen"),
    "parataa": ParaTAA(tolerance=1e-12, history=3),
}


def run_of(n):
    points = grid("lam", n)[1]
    return points, picard.ddim_steps(TM.denoiser, points)


def test_the_oracle_has_the_published_errors():
    _, phi = run_of(100)
    exact = picard.in_order(phi, np.array([0.7]))
    errors = [abs(x - exact).max() for x, _ in picard.iterates(phi, np.array([0.7]), 14)]
    assert errors[:-2] == pytest.approx(PUBLISHED[:-2], rel=0.05)
    assert max(errors[-2:]) < 1e-11


@pytest.mark.parametrize("window", [None, 20])
def test_increments_are_the_published_iteration(window):
    """Round after round, until the window is at its end."""
    points, phi = run_of(40)
    start = np.random.default_rng(0).normal(size=4)
    own = network(TM, BY_SCHEDULE["vp"], (4,))
    times = [Point(p.t, p.alpha, p.sigma) for p in points]
    x, tolerance = torch.tensor(start)[None], 1e-7
    buffers = list(picard.iterates(phi, start, 200, window, tolerance))
    chosen = [len(buffers)] if window else [1, 4, 7, len(buffers)]
    for rounds in chosen:
        # Scales sqrt(alpha^2 + sigma^2) are 1, and a point moves less than a tenth of the tolerance.
        led = ParaDiGMS(window, 10 * tolerance, "increments", max_rounds=rounds)
        made = Sampler(own, "ddim", times=times, driver=led, **DOUBLE).sample(x=x, noised=True)
        assert made.reports[0]["rounds"] == rounds
        assert made.samples[0].numpy() == pytest.approx(buffers[rounds - 1][0][-1], abs=1e-11)


def windows(rule, rounds, solver="dpmpp_2m", mix=None):
    """What a run's points read after each round, and in the run in order."""
    exact = Mixture().network(VP(), (5,))
    sampler = Sampler(exact, solver, 9, **DOUBLE)
    chain = links(sampler.plan())
    start = torch.randn(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def call(window):
        calls = [link.call for link in window.links[window.base :]]
        labels = torch.tensor([c.label for c in calls], dtype=torch.float64)
        scales = torch.tensor([c.c_in[0] for c in calls], dtype=torch.float64)[:, None]
        with torch.no_grad():
            (outs,) = exact(window.read[:, 0] * scales, labels, None)
        return [[out] for out in outs]

    ordered = Window(chain, 1, start, "frozen", lambda key, m: None)
    truth = []
    while not ordered.ended:
        truth.append(ordered.read[0, 0])
        calls = call(ordered)
        ordered.evaluate(calls[:1])
        swept, after = ordered.sweep()
        ordered.slide(1, swept, after)
    window, reads = Window(chain, len(chain), start, rule, lambda key, m: None), []
    for _ in range(rounds):
        window.evaluate(call(window))
        swept, after = window.sweep()
        reads.append(after[:, 0])
        window.read = after if mix is None else mix(window, after, 0)
    return reads, torch.stack(truth)


@pytest.mark.parametrize("rule", ["frozen", "secant"])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "heun", "unipc"])
def test_after_k_rounds_the_first_points_are_exact(rule, solver):
    reads, truth = windows(rule, 6, solver)
    for k, read in enumerate(reads, 1):
        away = (read - truth).abs().amax(1)
        assert away[: k + 1].max() < 1e-13
        if k < 4:
            assert away[-1] > 1e-6


def test_mixing_looks_at_no_point_behind():
    """Of two windows whose points from the fourth on differ, the first ones are mixed alike."""
    torch.manual_seed(0)
    chain = links(Sampler(Mixture().network(VP(), (5,)), "ddim", 7, **DOUBLE).plan())
    mixed = []
    for shift in (0.0, 1.0):
        window = Window(chain, 7, torch.zeros(1, 5), "frozen", lambda key, m: None)
        anderson, numbers = Anderson(2), torch.Generator().manual_seed(1)
        for _ in range(4):
            window.read, after = torch.randn(2, 7, 1, 5, dtype=torch.float64, generator=numbers)
            after[3:] += shift
            mixed.append(anderson(window, after, 0))
        assert not torch.equal(mixed[-1][1:], after[1:])
        assert torch.equal(mixed[-1][0], after[0])
    assert torch.equal(mixed[3][:3], mixed[7][:3])
    assert not torch.equal(mixed[3][3:], mixed[7][3:] - 1.0)


def ends(own, solver, form, n=2, how=DOUBLE, options=None, **request):
    """The samples of a run in order, and of one that is led."""
    options = {"steps": 6} | (options or {})
    plain = Sampler(own, solver, **options, **how).sample(n, seed=3, **request)
    led = Sampler(own, solver, driver=form, **options, **how).sample(n, seed=3, **request)
    return plain, led


@pytest.mark.parametrize(
    "schedule, form",
    [
        ("vp", "paradigms"),
        ("vp", "parataa"),
        ("edm", "paradigms frozen window"),
        ("flow", "parataa"),
        *(
            pytest.param(s, f, marks=pytest.mark.slow)
            for s in ("subvp", "edm", "flow")
            for f in FORMS
        ),
    ],
)
def test_every_solver_ends_where_its_run_does(schedule, form):
    """Those of the ODE, and those with noise, whose path is fixed."""
    own, run = network(TM, BY_SCHEDULE[schedule], (3,)), []
    for solver in OF_X:
        try:
            plan = Sampler(own, solver, 4, **DOUBLE).plan()
        except ValueError:
            continue
        if plan.nfe > 100:  # annealed Langevin's
            continue
        run.append(solver)
        plain, led = ends(own, solver, FORMS[form], 1, options={"steps": 4})
        assert led.samples.numpy() == pytest.approx(plain.samples.numpy(), abs=1e-9), solver
        assert led.reports[0]["converged"] and led.reports[0]["calls"] == plain.nfe
        assert led.reports[0]["rounds"] <= plain.nfe, solver
    assert len(run) > 20


@pytest.mark.parametrize(
    "solver, options",
    [
        ("cld_ode", {}),
        ("cld_exp", {}),
        ("sscs", {}),
        ("sscs", {"merged": False}),
        ("genie", {}),
        ("lcm", {}),
        ("ddpm", {"clip": (-0.4, 0.4)}),
    ],
    ids=str,
)
def test_states_of_two_parts_heads_and_clipping(solver, options):
    options = {"steps": 4} | options
    plain, led = ends(exact_network(solver, (3,)), solver, FORMS["parataa"], options=options)
    assert led.samples.numpy() == pytest.approx(plain.samples.numpy(), abs=1e-9)


def shifted(x, sigma, y):
    """E[x0 | x] of N(y / 4, 0.25)."""
    mean, sigma = (v.to(x.dtype)[:, None] for v in (0.25 * y, sigma))
    return mean + (x - mean) * (0.25 / (0.25 + sigma**2))


CLASSES = ScoreNetwork.from_denoiser(shifted, (4,), null=0, classes=8)
GUIDED = {"steps": 7, "guidance": 2.5, "interval": (0.02, 5.0)}


@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m_sde"])
def test_guidance_a_known_region_and_a_given_image(solver):
    more = {"mask": torch.tensor([1.0, 0.0, 1.0, 0.0]), "known": torch.full((4,), 0.3)}
    for request in ({"condition": [3, 5]}, {"condition": [3, 5]} | more):
        plain, led = ends(CLASSES, solver, FORMS["parataa"], options=GUIDED, **request)
        assert led.samples.numpy() == pytest.approx(plain.samples.numpy(), abs=1e-9)
        assert led.reports[0]["cost"] == led.reports[0]["evaluations"] * 2 / plain.evaluations
    image = {"x": torch.full((2, 4), 0.2), "start": 1.0, "condition": [3, 5]}
    plain, led = ends(CLASSES, solver, FORMS["paradigms"], options=GUIDED, **image)
    assert led.samples.numpy() == pytest.approx(plain.samples.numpy(), abs=1e-9)


@pytest.mark.parametrize("form", [ParaDiGMS(window=4), ParaTAA(history=3)], ids=str)
def test_bits_alone_in_a_batch_and_on_other_backends(form):
    made = {}
    for backend in ("torch", "cpp"):
        sampler = Sampler(CLASSES, "dpmpp_2m", driver=form, backend=backend, **GUIDED)
        made[backend] = sampler.sample(3, seed=5, condition=[1, 2, 3])
        for i in range(3):
            alone = sampler.sample(1, seed=5 + i, condition=[1 + i])
            assert torch.equal(alone.samples[0], made[backend].samples[i])
            assert alone.reports[0] == made[backend].reports[i]
    assert torch.equal(made["torch"].samples, made["cpp"].samples)


def digits(solver, form, seeds=(7,), steps=50, **options):
    how = {"steps": steps, "guidance": 2.0, **options}
    request = {"seeds": list(seeds), "condition": [s % 10 for s in seeds], "progress": False}
    plain = Sampler(zoo.load_network("digits"), solver, **how).sample(**request)
    led = Sampler(zoo.load_network("digits"), solver, driver=form, **how).sample(**request)
    away = (led.samples - plain.samples).flatten(1).square().mean(1).sqrt()
    return away.max().item(), led.reports


@pytest.mark.parametrize("solver, form", [("ddim", ParaTAA()), ("unipc", ParaDiGMS())], ids=str)
def test_digits_end_within_the_tolerance_in_a_third_of_the_steps(solver, form):
    away, reports = digits(solver, form)
    assert away < 1e-3
    assert reports[0]["rounds"] <= 50 / 3 and reports[0]["converged"]
    assert reports[0]["speedup"] == 50 / reports[0]["rounds"]


@pytest.mark.slow
@pytest.mark.parametrize("form", [ParaDiGMS(), ParaTAA()], ids=str)
@pytest.mark.parametrize("solver", OF_X)
def test_digits_of_every_solver(solver, form):
    plan = None
    try:
        plan = Sampler(zoo.load_network("digits"), solver, 50).plan()
    except ValueError as error:
        pytest.skip(str(error))
    if any(plan.draws[1:]):
        pytest.skip("it draws noise, and the requirement is of those that do not")
    away, reports = digits(solver, form, (7, 8, 9), guidance=1.0)
    assert away < 1e-3
    assert max(report["rounds"] for report in reports) <= 50 / 3


def test_a_limit_on_rounds_ends_the_run_where_the_points_are():
    own = Mixture().network(VP(), (5,))
    for window in (None, 3):
        made = Sampler(own, "dpmpp_2m", 9, driver=ParaDiGMS(window, max_rounds=2)).sample(2)
        assert [r["rounds"] for r in made.reports] == [2, 2]
        assert not any(r["converged"] for r in made.reports)
        assert made.samples.isfinite().all()
    far = [
        (ends(own, "dpmpp_2m", ParaDiGMS(max_rounds=n), options={"steps": 9})) for n in (1, 3, 5)
    ]
    errors = [(led.samples - plain.samples).abs().max().item() for plain, led in far]
    assert errors[0] > errors[1] > errors[2]


SHARED = """
import torch
from diffusion_engine import Sampler
from diffusion_engine.drivers.parataa import ParaTAA
from diffusion_engine.sampler.ranks import Ranks, sample_shared
from diffusion_engine.testing import Mixture
from diffusion_engine.processes import VP

class Counted:
    entries = 0

def counted(*args):
    Counted.entries += len(args[0])
    return own.module(*args)

ranks, own = Ranks.of_environment(), Mixture().network(VP(), (5,))
sampler = Sampler(own.with_module(counted), "dpmpp_2m", 9, driver=ParaTAA(window=5, across=True))
made = sample_shared(ranks, sampler, 2, None, None)
alone = Sampler(own, "dpmpp_2m", 9, driver=ParaTAA(window=5)).sample(2)
if ranks.rank == 0:
    assert torch.equal(made.samples, alone.samples) and made.reports == alone.reports
    print("same", ranks.world, Counted.entries < 0.7 * alone.evaluations)
else:
    assert made is None
"""


def test_two_processes_share_the_calls(tmp_path):
    (tmp_path / "shared.py").write_text(SHARED)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*start, tmp_path / "shared.py"], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "same 2 True"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tolerance": 0.0}, "tolerance=0.0: a tolerance is a number above 0"),
        ({"tolerance": -1e-3}, "tolerance=-0.001: a tolerance is a number above 0"),
        ({"tolerance": "1e-3"}, "a tolerance is a number above 0"),
        ({"window": 0}, "window=0: a window is a whole number of calls"),
        ({"slope": "newton"}, "slope='newton': choose increments, frozen, secant"),
        ({"max_rounds": 0}, "max_rounds=0: rounds are a whole number"),
        ({"across": 1}, "across=1: give True or False"),
        ({"history": 2}, "driver 'paradigms' takes no history"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Sampler(CLASSES, "ddim", driver={"name": "paradigms", "options": options})


def test_bad_runs():
    with pytest.raises(ValueError, match="history=0: differences are a whole number, 1 to 16"):
        ParaTAA(history=0)
    with pytest.raises(ValueError, match="window=21: this run makes 20 calls; give a window of 20"):
        Sampler(CLASSES, "dpmpp_2m", 20, driver=ParaDiGMS(window=21)).sample(1, condition=[1])
    with pytest.raises(ValueError, match="'increments' is of solvers that keep nothing but x"):
        Sampler(CLASSES, "dpmpp_2m", driver=ParaDiGMS(slope="increments")).plan()
    with pytest.raises(ValueError, match="tolerance=0"):
        Sampler(CLASSES, "ddim", driver=Spec(
            solver="ddim", driver={"name": "parataa", "options": {"tolerance": 0}}
        ).driver.model_dump())  # fmt: skip
