"""Random requests to an engine of two networks, each compared with the same one alone."""

import math
import random
from collections import Counter

import torch
from analytic import suited
from engine_networks import conditional

from diffusion_engine import Sampler, zoo
from diffusion_engine.engine import Engine
from diffusion_engine.processes import VP

WAIT = 600
SOLVERS = sorted(suited(VP()))


def check_load(executor, batch, requests, steps, digits, capacity=3, seed=0):
    """Each result of `requests` is bit for bit that of its recipe, made without the others; where the network
    is batch invariant, that of a plain sampler.

    steps    at most
    digits   how many go to the digits network, the others to one that is batch invariant
    """
    networks = {"digits": zoo.load_network("digits"), "exact": conditional()}
    asked = random_requests(random.Random(seed), requests, steps, digits)
    ended = []
    how = {"capacity": capacity, "batch": batch, "executor": executor, "max_queue": requests}
    with Engine(networks, **how) as engine:
        assert engine.probe("ddim", network="exact", condition=0).invariant
        handles = []
        for about, cancelled in asked:
            handles.append(engine.submit(**about))
            handles[-1].add_done_callback(ended.append)
            if cancelled is not None:
                handles[max(0, len(handles) - cancelled)].cancel()
        made = [_result(handle) for handle in handles]
        seen = engine.snapshot()
    assert Counter(map(id, ended)) == Counter(map(id, handles))
    assert {handle.status for handle in handles} <= {"done", "cancelled"}
    assert seen["occupied"] == seen["queued"] == seen["running"] == 0
    done = [(about, one) for (about, _), one in zip(asked, made, strict=True) if one is not None]
    assert len(done) >= 0.7 * requests
    assert {about["network"] for about, _ in done} == set(networks)
    for about, one in done:
        own, recipe = networks[about["network"]], one.recipe
        if batch == "fixed":
            assert recipe["bucket"] >= 2 * capacity and recipe["calls"] is None
        elif about["network"] == "exact":
            assert recipe["bucket"] is recipe["calls"] is None
        exact = about["network"] == "exact"
        again = alone(own, about) if exact else Sampler.replay(own, recipe)
        assert torch.equal(again.samples, one.samples), about


def _result(handle):
    """None of a request that was cancelled."""
    try:
        return handle.result(WAIT)
    except Exception:
        if handle.status != "cancelled":
            raise
        return None


def alone(network, about):
    """A request as a plain sampler takes it."""
    own = {name: about[name] for name in ("condition", "guidance", "seed")}
    return Sampler(network, about["spec"]["solver"], about["spec"]["steps"]).sample(**own)


def random_requests(rng, count, steps, digits):
    """(what is submitted, how many requests before it one is cancelled or None)."""
    networks = ["digits"] * digits + ["exact"] * (count - digits)
    rng.shuffle(networks)
    made = []
    for network in networks:
        n = rng.choice((1, 1, 1, 2, 3))
        few = math.ceil(steps ** rng.random())  # most are short
        about = {
            "spec": {"solver": rng.choice(SOLVERS), "steps": few},
            "network": network,
            "condition": [rng.randrange(10) for _ in range(n)],
            "guidance": [rng.choice((1.0, 1.0, 2.0, 4.5)) for _ in range(n)],
            "seed": rng.randrange(2**40),
            "priority": rng.randrange(3),
            "key": rng.choice("abc"),
        }
        made.append((about, rng.randrange(1, 20) if rng.random() < 0.1 else None))
    return made
