"""Drivers that lead, in an engine: bits, cancellation, previews and replays, whoever runs beside them."""

import json

import pytest
import torch
from driver_cases import EXACT, LED, NONE, SHAPE, TIMEOUT, Gate, leading

from diffusion_engine import Sampler, zoo
from diffusion_engine.engine import Cancelled, Engine

ORDINARY = [
    ({"solver": "heun", "steps": 5, "guidance": 1.5}, {"seeds": [7, 8], "condition": [1, 2]}),
    ({"solver": "dpmpp_2m_sde", "steps": 3}, {"seeds": [9], "condition": [3]}),
]
each = pytest.mark.parametrize("led", LED, ids=str)


def engine_of(network, led, **how):
    return Engine(network, 3 + 2 * led.seats, **how)


def results(engine, led, shape=SHAPE):
    """Of the led request, and of the ordinary ones before and behind it."""
    first, last = ORDINARY
    handles = [
        engine.submit(led.spec, **led.asked(shape)),
        engine.submit(first[0], **first[1]),
        engine.submit(last[0], **last[1]),
    ]
    return [handle.result(TIMEOUT) for handle in handles]


def replayed(network, made, given=NONE):
    recipe = json.loads(json.dumps(made.recipe, allow_nan=False))
    again = Sampler.replay(network, recipe, **{name: given[name] for name in recipe["needs"]})
    assert again.reports == made.reports and again.recipe == made.recipe
    return torch.equal(again.samples, made.samples)


def test_every_driver_that_leads_has_a_case():
    assert {led.name for led in LED} == leading(), "a line of it in tests/helpers/driver_cases.py"


@each
@pytest.mark.parametrize("batch", ["bucket", "fixed"])
def test_bits_beside_ordinary_samples_are_those_of_alone(led, batch):
    with engine_of(EXACT, led, batch=batch) as engine:
        made, *others = results(engine, led)
    alone = led.sampler(EXACT).sample(**led.asked(SHAPE))
    assert torch.equal(made.samples, alone.samples)
    assert made.reports == alone.reports and len(made.reports) == 2
    assert (made.nfe, made.evaluations) == (alone.nfe, alone.evaluations)
    assert made.recipe["driver"] == {"name": led.name, "options": alone.recipe["driver"]["options"]}
    assert replayed(EXACT, made, led.asked(SHAPE))
    for (spec, request), other in zip(ORDINARY, others, strict=True):
        plain = Sampler(EXACT, **spec).sample(**request)
        assert torch.equal(other.samples, plain.samples)


@pytest.mark.parametrize(
    "led, batch",
    [(led, "fixed") for led in LED] + [(led, "bucket") for led in LED if led.single][:1],
    ids=str,
)
def test_digits_beside_ordinary_samples(led, batch):
    """A network whose bits depend on the size of a call: fixed, or recorded and made again where a sample has
    a seat."""
    network = zoo.load_network("digits")
    with engine_of(network, led, batch=batch) as engine:
        made, *others = results(engine, led, network.shape)
        if batch == "fixed":
            alone = engine.submit(led.spec, **led.asked(network.shape)).result(TIMEOUT)
            assert torch.equal(made.samples, alone.samples) and made.reports == alone.reports
    assert made.samples.isfinite().all()
    given = led.asked(network.shape)
    assert replayed(network, made, given) and all(replayed(network, other) for other in others)


@each
def test_cancelled_in_the_middle_it_frees_its_seats(led):
    gate = Gate(holds=3)
    request = led.asked(SHAPE) | {"seeds": [3], "condition": [5]}
    with Engine(gate.network, led.seats, probe=False) as engine:
        handle = engine.submit(led.spec, **request)
        assert gate.reached.wait(TIMEOUT)
        waiting = engine.submit(led.spec, **request)  # there is room for one
        assert handle.cancel("enough") and waiting.status == "queued"
        gate.open.set()
        with pytest.raises(Cancelled, match="enough"):
            handle.result(TIMEOUT)
        made = waiting.result(TIMEOUT)
    alone = led.sampler(EXACT).sample(**request)
    assert torch.equal(made.samples, alone.samples) and made.reports == alone.reports


@each
def test_previews_are_the_estimates(led):
    seen, request = [], led.asked(SHAPE) | {"seeds": [3], "condition": [5]}
    led.sampler(EXACT).sample(**request, on_step=lambda p: seen.append(p.denoised[0].clone()))
    gate = Gate(holds=1)
    with Engine(gate.network, led.seats, probe=False) as engine:
        handle = engine.submit(led.spec, **request, preview=1)
        assert gate.reached.wait(TIMEOUT)
        told = handle.events(room=1000)
        gate.open.set()
        events = list(told)
    previews = [event for event in events if event.kind == "preview"]
    assert events[-1].kind == "done" and previews
    for event in previews:
        assert event.denoised.shape == SHAPE and 0 < event.row < event.rows
        assert any(torch.equal(event.denoised, estimate) for estimate in seen)
