"""Drivers beside what else samplers and engines do: guiders, given images, threads, requests of any size."""

import json
import sys
from functools import partial

import pytest
import torch
from driver_cases import EXACT, LED, MEASURED, SHAPE, TIMEOUT, Led, gaussians, network_of
from hammer import hammer

from diffusion_engine import Sampler
from diffusion_engine.engine import Engine
from diffusion_engine.engine.served import WRAPPED

GROUP = Led("tds", MEASURED, request={"guidance": 1.0})
MOVED = Led("predictor_corrector", {"snr": 0.1}, "ddim", 2)


@pytest.mark.parametrize("guider", ["rescale", "threshold"])
def test_a_lead_sees_estimates_before_a_guider(guider):
    """What it would decide by is not the estimate that the step has."""
    with pytest.raises(ValueError, match="a guider has not weighed yet"):
        MOVED.sampler(EXACT, guider=guider)
    assert (
        Sampler(EXACT, driver="restart", guider=guider)
        .sample(2, condition=3)
        .samples.isfinite()
        .all()
    )


@pytest.mark.parametrize(
    "given",
    [
        {"x": torch.zeros(2, *SHAPE), "start": 1.0},
        {"mask": torch.ones(5, 7), "known": torch.zeros(SHAPE)},
    ],
    ids=["x", "mask"],
)
def test_particles_begin_in_noise(given):
    with pytest.raises(ValueError, match="'tds' begins with noise of its own"):
        GROUP.sampler(EXACT).sample(**GROUP.asked(SHAPE) | given)


def test_a_particle_that_is_lost_leaves_its_place_to_others():
    def network(x, sigma, y):
        made = gaussians(x, sigma, y)
        made[0] += torch.where(sigma[0] < 30.0, torch.nan, 0.0)
        return made

    asked = GROUP.asked(SHAPE) | {"seeds": [3, 4, 5], "condition": 5}
    with pytest.warns(RuntimeWarning, match=r"seeds \[3\] met a value that is not finite"):
        made = GROUP.sampler(network_of(network)).sample(**asked)
    assert made.finite == [False, True, True] and made.samples.isfinite().all()
    effective = json.loads(json.dumps(made.reports[0], allow_nan=False))["effective"]
    assert max(effective) <= 3.0 and effective[-1] <= 2.0


@pytest.mark.parametrize("led", LED, ids=str)
def test_one_sampler_in_four_threads(led):
    sampler, asked = led.sampler(EXACT), led.asked(SHAPE)

    def made(seed):
        result = sampler.sample(**asked | {"seeds": [seed, seed + 1]}, progress=False)
        return [result.samples, torch.tensor(list(json.dumps(result.reports).encode()))]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        found = hammer([partial(made, seed) for seed in (0, 2**63)], 8)
    finally:
        sys.setswitchinterval(before)
    assert not found["wrong"] and not found["errors"], found


def test_a_request_of_more_samples_than_an_engine_prepares_at_a_time():
    seeds = list(range(70))
    with Engine(EXACT, 16) as engine:
        made = engine.submit(MOVED.spec, seeds=seeds, condition=[3] * 70).result(TIMEOUT)
    alone = MOVED.sampler(EXACT, batch_size=7).sample(seeds=seeds, condition=[3] * 70)
    assert torch.equal(made.samples, alone.samples) and made.reports == alone.reports
    assert (made.nfe, made.evaluations) == (alone.nfe, alone.evaluations)


def test_a_group_that_has_no_room_is_refused_before_its_jobs_are_made():
    asked = {"n": 10**6, "condition": 3, "measurement": torch.zeros(SHAPE)}
    with (
        Engine(EXACT, 4) as engine,
        pytest.raises(
            ValueError, match="takes 1000000 seats together and the engine's batch has 4"
        ),
    ):
        engine.submit(GROUP.spec, **asked)


def test_batches_of_other_networks_do_not_pile_up():
    """Every option of a driver that has another network in the place of the engine's makes one."""
    with Engine(EXACT, 2) as engine:
        for i in range(WRAPPED + 4):
            driver = {"name": "dps", "options": MEASURED | {"zeta": 0.1 * i}}
            spec = {"solver": "ddim", "steps": 2, "driver": driver}
            engine.submit(spec, seeds=[i], condition=3, measurement=torch.zeros(SHAPE)).result(
                TIMEOUT
            )
        found = engine.snapshot()
    assert WRAPPED <= found["lanes"] <= WRAPPED + 1
    assert len(found["probes"][""]) <= WRAPPED + 1
