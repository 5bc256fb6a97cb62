"""Adaptive steps in batches, guided, from images, in an engine; what is reported, and what is refused."""

import math
import re

import pytest
import torch
from executor_cases import CONDITIONAL

from diffusion_engine import Engine, Sampler, ScoreNetwork, Spec
from diffusion_engine.drivers import driver
from diffusion_engine.processes import EDM, VP, FlowMatching
from diffusion_engine.testing import Gaussian, Mixture, cld_mixture, labelled_mixture

KINDS = {
    "adaptive": {"name": "adaptive", "options": {"rtol": 2e-3, "atol": 1e-3}},
    "rk45": {"name": "adaptive", "options": {"pair": "rk45"}},
    "dpm_adaptive": {"name": "dpm_adaptive"},
    "noisy": {"name": "dpm_adaptive", "options": {"order": 2, "eta": 0.8}},
}
MIXED = Mixture().network(VP(), (1, 2, 3))


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_does_not_see_its_neighbours(kind, backend):
    """Hard ones and easy ones sit in one batch, and each takes its own steps."""
    sampler = Sampler(CONDITIONAL, "euler", driver=KINDS[kind], guidance=3.0, backend=backend)
    asked = {"condition": [0, 3, 9, 3], "guidance": [1.0, 3.0, 9.0, 1.0]}
    together = sampler.sample(4, seed=2, **asked)
    assert len({tuple(report["times"]) for report in together.reports}) > 1
    for i in range(4):
        own = {name: values[i] for name, values in asked.items()}
        alone = sampler.sample(1, seed=2 + i, **own)
        assert torch.equal(alone.samples[0], together.samples[i])
        assert alone.reports[0] == together.reports[i]


@pytest.mark.parametrize("kind", KINDS)
def test_backends_make_the_same_bits(kind):
    made = [
        Sampler(MIXED, "euler", driver=KINDS[kind], backend=backend).sample(3, seed=4)
        for backend in ("torch", "cpp")
    ]
    assert torch.equal(made[0].samples, made[1].samples)
    assert made[0].reports == made[1].reports


@pytest.mark.parametrize("kind", ["adaptive", "dpm_adaptive"])
@pytest.mark.parametrize("guidance", [None, 2.0])
def test_guidance_and_images(kind, guidance):
    """They end where a fine table does."""
    network, asked = Mixture().network(FlowMatching(), (3,)), dict[str, object]()
    if guidance:
        network, asked = labelled_mixture(VP(), (3,)), {"condition": [1], "guidance": guidance}
    driver = {"name": kind, "options": {"rtol": 1e-4, "atol": 1e-4}}
    how = {"dtype": torch.float64, "backend": "torch"}
    adaptive = Sampler(network, "euler", driver=driver, **how)
    table = Sampler(network, "unipc", steps=150, **how)
    middle = adaptive.points[6].t
    x = torch.tensor([[0.2, -0.5, 0.9]], dtype=torch.float64)
    for more in ({}, {"x": x, "start": middle}):
        made, wanted = (s.sample(1, seed=3, **asked, **more) for s in (adaptive, table))
        assert torch.allclose(made.samples, wanted.samples, rtol=0, atol=2e-3), more
        assert made.evaluations == (2 if guidance else 1) * made.nfe
        if more:
            assert made.reports[0]["times"][0] < middle


def test_a_known_region_stays_on_its_law():
    """x changes behind every step, so that its next call is made anew."""
    sampler = Sampler(MIXED, "euler", driver=KINDS["adaptive"])
    mask = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    known = torch.full((1, 1, 2, 3), 0.25)
    result = sampler.sample(1, seed=3, mask=mask, known=known)
    assert torch.equal(result.samples[0][mask == 0.0], known[0][mask == 0.0])
    report = result.reports[0]
    assert report["calls"] == 4 * report["steps"] + 3 * report["rejected"] + 1
    free = sampler.sample(1, seed=3)
    report = free.reports[0]
    assert report["calls"] == 3 * (report["steps"] + report["rejected"]) + 1
    # Elements of this data do not know of one another.
    assert (result.samples - free.samples)[0][mask == 1.0].abs().max() < 2e-2


@pytest.mark.parametrize("order", [2, 3])
def test_noise_keeps_the_law(order):
    """Of Gaussian data: mean 0.3, standard deviation 0.5."""
    options = {"eta": 1.0, "order": order, "rtol": 2e-3, "atol": 2e-3}
    network = Gaussian(0.3, 0.5).network(VP(), (1, 64, 128))
    driver = {"name": "dpm_adaptive", "options": options}
    made = Sampler(network, "euler", driver=driver).sample(1, seed=1).samples
    error = 3.0 * 0.5 / math.sqrt(made.numel())
    assert abs(made.mean().item() - 0.3) < error
    assert abs(made.std().item() - 0.5) < error
    quiet = {"name": "dpm_adaptive", "options": {**options, "eta": 0.0}}
    assert not torch.allclose(
        made, Sampler(network, "euler", driver=quiet).sample(1, seed=1).samples, atol=0.1
    )


def test_one_error_for_a_batch():
    """k-diffusion's rule: all take the same steps, and each depends on the others."""
    rule = {"name": "dpm_adaptive", "options": {"rule": "batch"}}
    sampler = Sampler(MIXED, "euler", driver=rule)
    made = sampler.sample(4, seed=1)
    assert all(report == made.reports[0] for report in made.reports)
    own = Sampler(MIXED, "euler", driver="dpm_adaptive").sample(4, seed=1)
    assert len({tuple(report["times"]) for report in own.reports}) > 1
    alone = sampler.sample(1, seed=1)
    assert torch.equal(alone.samples[0], own.samples[0])
    assert not torch.equal(alone.samples[0], made.samples[0])


def test_in_an_engine_beside_tables():
    asked = {"solver": "euler", "driver": KINDS["adaptive"]}
    alone = Sampler(CONDITIONAL, "euler", driver=KINDS["adaptive"]).sample(
        3, condition=[1, 5, 9], seed=7
    )
    with Engine(CONDITIONAL, capacity=4) as engine:
        tables = [
            engine.submit(Spec(solver="dpmpp_2m", steps=n), 1, condition=[2]) for n in (3, 9, 40)
        ]
        led = engine.submit(Spec(**asked), 3, condition=[1, 5, 9], seed=7)
        few = {"name": "adaptive", "options": {"max_calls": 5}}
        failed = engine.submit(Spec(solver="euler", driver=few), 1, condition=[2])
        with pytest.raises(ValueError, match="max_calls=5"):
            failed.result()
        result = led.result()
        assert all(table.result().reports is None for table in tables)
    assert torch.equal(result.samples, alone.samples)
    assert result.reports == alone.reports
    again = Sampler.replay(CONDITIONAL, result.recipe)
    assert torch.equal(again.samples, alone.samples)


def test_reports():
    result = Sampler(MIXED, "euler", driver=KINDS["dpm_adaptive"]).sample(3, seed=1)
    for report in result.reports:
        assert set(report) == {"calls", "steps", "rejected", "times"}
        assert len(report["times"]) == report["steps"]
        assert report["times"] == sorted(report["times"], reverse=True)
        # Three calls a step and one to clean data; a step that is tried again keeps its first call.
        tried = report["steps"] + report["rejected"]
        assert report["calls"] == 3 * tried - report["rejected"] + 1
    assert result.nfe == max(report["calls"] for report in result.reports)
    assert result.evaluations == sum(report["calls"] for report in result.reports)


def test_values_that_are_not_finite_end_one_sample():
    def network(x, sigma):
        bad = (sigma.view(-1, 1) < 1.0) & (x.sum(1, keepdim=True) > 0.0)
        return torch.where(bad, torch.nan, x / (1.0 + sigma.view(-1, 1) ** 2))

    sampler = Sampler(ScoreNetwork.from_denoiser(network, (4,), EDM()), "euler", driver="adaptive")
    result = sampler.sample(6)
    assert True in result.finite and False in result.finite
    whole = [r["steps"] for r, finite in zip(result.reports, result.finite, strict=True) if finite]
    cut = [
        r["steps"] for r, finite in zip(result.reports, result.finite, strict=True) if not finite
    ]
    assert max(cut) < min(whole)


def test_a_limit_of_calls():
    options = {"max_calls": 9, "rtol": 1e-6, "atol": 1e-6}
    sampler = Sampler(MIXED, "euler", driver={"name": "adaptive", "options": options})
    with pytest.raises(
        ValueError, match=r"sample of seed 31 has made max_calls=9 calls and is at t="
    ):
        sampler.sample(1, seed=31)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("adaptive", {"rtol": 0.0}, "rtol=0: a tolerance is a finite number above 0"),
        ("adaptive", {"atol": -1e-3}, "atol=-0.001: a tolerance is a finite number above 0"),
        ("adaptive", {"rtol": math.inf}, "rtol=inf: a tolerance is"),
        ("adaptive", {"atol": "small"}, "atol='small': a tolerance is"),
        ("adaptive", {"pair": "rk12"}, "pair='rk12': choose rk23, rk45"),
        ("adaptive", {"h_init": 0.0}, "h_init=0: a step is a finite number above 0"),
        ("adaptive", {"max_calls": 0}, "max_calls=0: give a whole number of calls"),
        ("adaptive", {"order": 3}, "driver 'adaptive' takes no order"),
        ("dpm_adaptive", {"order": 4}, "order=4: choose 2, 3"),
        ("dpm_adaptive", {"atol": 0}, "atol=0: a tolerance is"),
        ("dpm_adaptive", {"eta": 1.5}, "eta=1.5: the amount of fresh noise lies between 0 and 1"),
        ("dpm_adaptive", {"icoeff": math.nan}, "icoeff=nan: give a finite number"),
        ("dpm_adaptive", {"accept_safety": 0.0}, "accept_safety=0: give a number above 0"),
        ("dpm_adaptive", {"rule": "mean"}, "rule='mean': choose sample, batch"),
    ],
)
def test_options_that_make_no_sense(name, options, sentence):
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        driver(name, **options)


@pytest.mark.parametrize("name", ["adaptive", "dpm_adaptive"])
def test_runs_that_it_cannot_make(name):
    with pytest.raises(ValueError, match=r"moves? x alone, and CLD has a state of \[x, v\]"):
        Sampler(cld_mixture(), "sscs", driver=name)
    with pytest.raises(ValueError, match="one step to clean data; give steps=2 or more"):
        Sampler(MIXED, "euler", steps=1, driver=name)
