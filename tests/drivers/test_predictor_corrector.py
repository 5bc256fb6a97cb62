"""Predictor-corrector: the published loop, any predictor, norms of a sample or of a batch, laws, errors."""

import math

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE, network
from executor_cases import CONDITIONAL
from oracles.predictor_corrector import predictor_corrector as oracle
from oracles.problems import SCHEDULES, TM

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.drivers.predictor_corrector import CORRECTS, PredictorCorrector
from diffusion_engine.ops import philox
from diffusion_engine.processes import EDM, VE, VP, FlowMatching, SubVP
from diffusion_engine.testing import Gaussian, Mixture, exact_network

REFERENCE = {"dtype": torch.float64, "backend": "torch"}
SHAPE, SEEDS = (5,), (3, 4, 5)


def normals(key, shape=SHAPE, seeds=SEEDS):
    """[samples, elements], those of a row's key."""
    seed = torch.tensor(seeds)
    made = philox.normals(seed, torch.full_like(seed, key), 0, math.prod(shape))
    return made.double().numpy()


def both(schedule, predictor, n, driver, times=None, **options):
    """Samples of the engine and of the oracle from one state, on the mixture."""
    process, law, published = BY_SCHEDULE[schedule], SCHEDULES[schedule], "step" in options
    made = Sampler(
        network(TM, process, SHAPE),
        predictor,
        n,
        driver=driver,
        times=times,
        **REFERENCE,
        **options,
    )
    start = np.random.default_rng(0).normal(size=(3, *SHAPE)) * process.prior_std(made.points[0])
    ours = made.sample(x=torch.from_numpy(start), noised=True, seeds=SEEDS)
    points = [law.point(p.t) if p.sigma else law.clean() for p in made.points]
    given, count = philox.STATE, driver.steps

    def draws(i):
        return [normals(CORRECTS | given | count * i + j) for j in range(1, count + 1)]

    theirs = oracle(
        TM.denoiser, points, start, lambda i: normals(given | i + 1), draws, schedule=law,
        predictor=predictor, published=published, corrector=driver.corrector, snr=driver.snr,
        rule=driver.rule,
    )  # fmt: skip
    return ours, theirs


@pytest.mark.parametrize("schedule", ["vp", "subvp", "ve"])
@pytest.mark.parametrize("predictor", ["reverse_diffusion", "euler_maruyama"])
@pytest.mark.parametrize(
    "driver",
    [
        PredictorCorrector(rule="batch"),
        PredictorCorrector(steps=2, snr=0.1),
        PredictorCorrector("ald", steps=3, snr=0.2),
    ],
    ids=["batch", "sample", "ald"],
)
def test_the_published_loop_is_reproduced(schedule, predictor, driver):
    n = 12 if schedule == "ve" else 21  # beta / N has to stay below 1
    ours, theirs = both(schedule, predictor, n, driver, grid="uniform", step="1/N")
    # The oracle's schedule of VE differs in the last bits, which its scores of 1e-2 levels magnify.
    assert ours.samples.numpy() == pytest.approx(theirs, rel=1e-8, abs=1e-8)
    assert (ours.nfe, ours.evaluations) == (n * (driver.steps + 1), 3 * n * (driver.steps + 1))
    assert [report["moves"] for report in ours.reports] == [n * driver.steps] * 3


@pytest.mark.parametrize("schedule", ["vp", "subvp", "ve"])
@pytest.mark.parametrize("predictor", ["reverse_diffusion", "dpmpp_2m"])
@pytest.mark.parametrize("rule", ["sample", "batch"])
def test_any_grid_and_a_predictor_with_a_history(schedule, predictor, rule):
    driver = PredictorCorrector(rule=rule, steps=2)
    ours, theirs = both(schedule, predictor, 9, driver, grid="lambda")
    assert ours.samples.numpy() == pytest.approx(theirs, rel=1e-8, abs=1e-8)


def test_the_golden_step_of_a_corrector():
    """r = 0.16 on N(0, sigma^2): e = 0.0512 sigma^2, and x shrinks to 0.9488 x and noise."""
    zero = ScoreNetwork(lambda x, label: 0.0 * x, VE(), (1000,), prediction="x0")
    x = 50.0 * torch.randn(2, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = []
    for corrector in ("ald", "langevin"):
        sampler = Sampler(
            zero, "ddim", times=[1.0, -1.0], driver=PredictorCorrector(corrector), **REFERENCE
        )
        made = sampler.sample(
            x=x, noised=True, seeds=(3, 4), on_step=lambda p: seen.append(p.x.clone())
        )
        low, high = made.reports[0]["steps"]
        assert low == high == pytest.approx(0.0512, rel=1e-12 if corrector == "ald" else 0.1)
    z = normals(CORRECTS | philox.STATE | 1, (1000,), (3, 4))
    corrected = 0.9488 * x.numpy() + math.sqrt(2.0 * 0.0512) * 50.0 * z
    assert seen[0].numpy() == pytest.approx(corrected, rel=1e-9)


def test_a_corrector_reaches_its_stationary_variance():
    """v / (1 - e / (2 v)) of N(m, v), by many steps from a state that is far too narrow."""
    data, shape = Gaussian(), (64, 256)
    driver, seen = PredictorCorrector("ald", steps=60, snr=1.2), []
    sampler = Sampler(
        data.network(VE(sigma_max=2.0), shape), "ddim", times=[0.5, -1.0], driver=driver
    )
    s = sampler.points[0]
    sampler.sample(
        x=torch.full((1, *shape), 0.3), noised=True, on_step=lambda p: seen.append(p.x.clone())
    )
    v, e = 0.25 + s.sigma**2, 2.0 * (1.2 * s.sigma) ** 2
    at_rest, n = v / (1.0 - e / (2.0 * v)), math.prod(shape)
    assert abs(float(seen[-2].mean()) - 0.3) < 4.0 * math.sqrt(at_rest / n)
    assert abs(float(seen[-2].var()) / at_rest - 1.0) < 4.0 * math.sqrt(2.0 / n)


def test_a_corrector_is_worth_its_calls():
    """Mean distance of the quantiles to the mixture's, at as many calls: 0.011 and 0.024 were found."""
    data, n = Mixture(), 20_000
    exact = mixture_quantiles(data, (np.arange(n) + 0.5) / n)

    def distance(steps, driver):
        sampler = Sampler(data.network(VE(), (n,)), "ddim", steps, driver=driver)
        return np.abs(np.sort(sampler.sample(1).samples[0].numpy()) - exact).mean()

    assert distance(20, PredictorCorrector(snr=0.3)) < 0.7 * distance(40, None)


def mixture_quantiles(data, levels):
    at = np.linspace(-3.0, 3.0, 6001)
    each = zip(data.weights, data.means, data.stds, strict=True)
    below = sum(
        w * (1.0 + np.array([math.erf((v - m) / (std * math.sqrt(2.0))) for v in at])) / 2.0
        for w, m, std in each
    )
    return np.interp(levels, below, at)


@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m", "dpm_2_ancestral", "plms"])
def test_rows_of_the_solver_stay_its_own(solver):
    """A corrector of steps next to nothing leaves the solver's sample."""
    net = exact_network(solver, (4,))
    idle = PredictorCorrector("ald", snr=1e-12)
    led = Sampler(net, solver, 6, driver=idle, **REFERENCE).sample(2)
    plain = Sampler(net, solver, 6, **REFERENCE).sample(2)
    assert torch.allclose(led.samples, plain.samples, rtol=0, atol=1e-9)
    assert led.nfe == plain.nfe + led.reports[0]["moves"]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("solver", ["reverse_diffusion", "dpmpp_2m", "heun"])
def test_bits_are_the_same_alone_and_in_a_batch(backend, solver):
    how = {"driver": "predictor_corrector", "backend": backend, "clip": (-0.9, 0.9)}
    sampler = Sampler(CONDITIONAL, solver, 5, **how)
    asked = {"condition": [1, 2, 3], "guidance": [1.0, 2.5, 0.5]}
    batch = sampler.sample(seeds=SEEDS, **asked)
    for i, seed in enumerate(SEEDS):
        one = {name: value[i : i + 1] for name, value in asked.items()}
        alone = sampler.sample(seeds=[seed], **one)
        assert torch.equal(alone.samples[0], batch.samples[i])
        assert alone.reports == [batch.reports[i]]


def test_the_published_rule_looks_at_the_whole_batch():
    net = Gaussian().network(VE(), (6,))
    for rule, depends in (("sample", False), ("batch", True)):
        driver = PredictorCorrector(rule=rule)
        sampler = Sampler(net, "reverse_diffusion", 6, driver=driver)
        assert driver.together is depends
        pair, other = sampler.sample(seeds=[1, 2]), sampler.sample(seeds=[1, 3])
        assert torch.equal(pair.samples[0], other.samples[0]) is not depends
        assert (pair.reports[0] == pair.reports[1]) is depends
        assert torch.equal(Sampler.replay(net, pair.recipe).samples, pair.samples)
    assert not PredictorCorrector("ald", rule="batch").together  # it takes no norms


def test_a_known_region_is_kept_after_every_move():
    net, seen = Gaussian().network(VE(), (1, 4, 4)), []
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[..., 2:] = True
    known = torch.full((1, 1, 4, 4), 0.25)
    sampler = Sampler(net, "reverse_diffusion", 5, driver="predictor_corrector", **REFERENCE)
    made = sampler.sample(
        1, mask=mask, known=known, on_step=lambda p: seen.append((p.t, p.x.clone()))
    )
    assert torch.equal(made.samples[..., :2], known[..., :2].double())
    assert len(seen) == 10
    for t, x in seen[:-1]:  # fresh noise of the level of each state
        spread = (x[..., :2] - 0.25).abs().max() / float(VE().sigma(t))
        assert 0.0 < spread < 6.0


def test_nothing_is_corrected_at_pure_noise():
    net = Mixture().network(FlowMatching(), (3,))
    made = Sampler(net, "ddim", 6, driver="predictor_corrector").sample(2)
    assert made.samples.isfinite().all() and made.reports[0]["moves"] == 5


def test_a_score_of_zero_stays_where_it_is():
    flat = ScoreNetwork(lambda x, label: x, VE(), (4,), prediction="x0")
    made = Sampler(flat, "ddim", 3, driver="predictor_corrector").sample(1)
    assert made.samples.isfinite().all() and made.reports[0]["steps"] == [0.0, 0.0]


def test_values_that_are_not_finite_stay_in_their_sample():
    def module(x, sigma, y):
        return torch.where((y == 1)[:, None], x / 2.0, torch.nan)

    net = ScoreNetwork(module, EDM(), (4,), prediction="x0", label="sigma", classes=3)
    sampler = Sampler(net, "ddim", 3, driver="predictor_corrector")
    with pytest.warns(RuntimeWarning, match="seeds \\[4\\]"):
        made = sampler.sample(seeds=[3, 4], condition=[1, 2])
    alone = sampler.sample(seeds=[3], condition=[1])
    assert made.finite == [True, False] and torch.equal(made.samples[0], alone.samples[0])
    assert made.reports == [alone.reports[0], {"moves": 3, "steps": []}]


@pytest.mark.parametrize("start, given", [(None, 0), (0.4, philox.IMAGE)])
def test_normals_from_a_given_image_are_others(start, given):
    """The first move, of N(0.3, 0.25) from the prior or from a noised image of zeros."""
    how = {} if start is None else {"x": torch.zeros(2, 6), "start": start}
    net, seen = Gaussian().network(VE(), (6,)), []
    sampler = Sampler(net, "ddim", 6, driver="predictor_corrector", **REFERENCE)
    sampler.sample(2, seed=3, **how, on_step=lambda p: seen.append(p.x.clone()))
    sigma = float(VE().sigma(1.0 if start is None else start))
    z, x = (normals(key, (6,), (3, 4)) for key in (CORRECTS | given | 1, given))
    g = (0.3 - sigma * x) / (0.25 + sigma**2)
    e = 2 * (0.16 * np.linalg.norm(z, axis=1) / np.linalg.norm(g, axis=1))[:, None] ** 2
    assert seen[0].numpy() == pytest.approx(sigma * x + e * g + np.sqrt(2 * e) * z, rel=1e-9)


@pytest.mark.parametrize(
    "solver, options, message",
    [
        ("ddim", {"corrector": "mala"}, "corrector='mala'"),
        ("ddim", {"rule": "mean"}, "rule='mean'"),
        ("ddim", {"snr": 0.0}, "snr=0: the ratio is above 0"),
        ("ddim", {"snr": "x"}, "snr='x': the ratio is above 0"),
        ("ddim", {"steps": 0}, "steps=0: 1 step of the corrector or more"),
        ("ddim", {"n_steps": 2}, "n_steps"),
        ("sscs", {}, "the score of x, and a network of CLD says that of the velocity alone"),
        ("unipc", {}, "'unipc' goes on from a state that it kept"),
    ],
)
def test_bad_input(solver, options, message):
    with pytest.raises(ValueError, match=message):
        driver = {"name": "predictor_corrector", "options": options}
        Sampler(exact_network(solver), solver, 6, driver=driver)


@pytest.mark.parametrize("process", [VP(), SubVP()])
def test_too_few_published_steps(process):
    net, how = Gaussian().network(process, (3,)), {"step": "1/N", "driver": "predictor_corrector"}
    with pytest.raises(ValueError, match="makes beta / N reach 1 in 20 steps, and a move"):
        Sampler(net, "euler_maruyama", 20, **how)
    assert Sampler(net, "euler_maruyama", 21, **how).sample(1).nfe == 42


def test_unipc_without_its_own_corrector_is_a_predictor():
    net = exact_network("unipc")
    sampler = Sampler(net, "unipc", 6, driver="predictor_corrector", corrector=False)
    assert sampler.sample(1).samples.isfinite().all()


@pytest.mark.parametrize("process", [VP(), VE()])
def test_a_run_may_end_above_clean_data(process):
    """The last of the points is where the run ends: nothing corrects there."""
    net = Gaussian().network(process, (3,))
    sampler = Sampler(net, "ddim", 4, end="t_min", driver="predictor_corrector")
    made = sampler.sample(1)
    assert made.reports[0]["moves"] == len(sampler.points) - 1 == 4
