"""Rollouts of requests to the engine: those that a sampler makes, whoever shares the batch."""

import torch
from rollout_cases import ALL
from rollout_networks import CLASSES, policy
from sampler_cases import elementwise

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.engine import Engine
from diffusion_engine.engine.ticket import CHUNK
from diffusion_engine.processes import VP
from diffusion_engine.rollouts import log_prob
from diffusion_engine.sampler.spec import Spec

TIMEOUT = 60.0
STATES = ("trajectory", "mean", "std", "noise", "log_prob")


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in STATES)


def test_recorded_among_others():
    """Requests of several solvers share a batch, some recorded, and each has the bits of its own run."""
    network = ScoreNetwork(elementwise, VP(), (3, 5, 7))
    asked = [("flow_sde", 5), ("cps", 9), ("dpmpp_2m", 7), ("dpmpp_sde", 4), ("ddpm", 6)]
    with Engine(network, capacity=4) as engine:
        handles = []
        for i, (solver, steps) in enumerate(asked):
            record = () if solver == "dpmpp_2m" else ALL
            spec = {"solver": solver, "steps": steps}
            handles.append(engine.submit(spec, seeds=[i, i + 20, i + 40], record=record))
        made = [handle.result(TIMEOUT) for handle in handles]
    for i, ((solver, steps), result) in enumerate(zip(asked, made, strict=True)):
        alone = Sampler(network, solver, steps)
        record = () if solver == "dpmpp_2m" else ALL
        wanted = alone.sample(seeds=[i, i + 20, i + 40], record=record)
        assert torch.equal(result.samples, wanted.samples)
        if record:
            assert same(result.rollout, wanted.rollout)
        else:
            assert result.rollout is None


def test_a_large_request_with_a_learned_variance():
    """More samples than jobs are made of at a time, and given normals, one by one."""
    made = policy("ddpm", 3, torch.float32, variance="learned_range")
    n = 70
    request = {"condition": [i % CLASSES for i in range(n)], "guidance": 2.0, "record": ALL}
    normals = torch.randn(4, 1, n, 2, 3, generator=torch.Generator().manual_seed(0))

    def source(row, m, seeds):
        return normals[row, m, list(seeds)]

    with Engine(made.network, capacity=8) as engine:
        handle = engine.submit(made.spec, n, noise=source, **request)
        result = handle.result(TIMEOUT)
    wanted = made.sample(n, noise=normals, **request)
    assert torch.equal(result.rollout.noise, wanted.rollout.noise)
    assert torch.allclose(result.rollout.log_prob, wanted.rollout.log_prob, rtol=1e-4, atol=1e-4)
    found = log_prob(result.rollout, made.network)
    assert torch.allclose(found, result.rollout.log_prob, rtol=1e-3, atol=1e-3)


def test_a_cancelled_request_lets_go_of_its_tapes():
    network = ScoreNetwork(elementwise, VP(), (3, 5, 7))
    with Engine(network, capacity=2) as engine:
        served = engine._served[""]
        seen = []
        inner = served.ticket

        def ticket(*args):
            seen.append(inner(*args))
            return seen[-1]

        served.ticket = ticket
        handle = engine.submit({"solver": "flow_sde", "steps": 100}, 50, record=ALL)
        assert handle.cancel()
    assert seen[0].tapes == {} and seen[0].samples == []


def test_tapes_are_made_as_the_samples_come():
    network = ScoreNetwork(elementwise, VP(), (3, 5, 7))
    with Engine(network, capacity=2) as engine:
        served = engine._served[""]
        ticket = served.ticket(Spec(solver="flow_sde", steps=3), 50_000, {"record": ALL})
        assert len(ticket.tapes) == CHUNK
