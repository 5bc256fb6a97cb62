"""Random requests to an engine of two networks, each compared with the same one alone."""

import json
import random
from collections import Counter

import torch
from adapter_cases import drawn, merged
from engine_draw import KINDS, Draw, alone, kinds, random_requests
from engine_networks import conditional
from executor_cases import elementwise
from torch import nn

from diffusion_engine import Decoder, Sampler, zoo
from diffusion_engine.engine import Engine
from diffusion_engine.native import Native

WAIT = 1800
# Tensors that a recipe does not hold, and what is recorded.
GIVEN = ("x", "mask", "known", "record")
ADAPTERS = {
    "digits": {"lora": {"down1.conv1.weight": (drawn(2, 288, seed=1), drawn(32, 2, seed=2), 0.3)}},
    "exact": {"lora": {"gain": (drawn(1, 1, seed=3), drawn(3, 1, seed=4))}},
}


class Weighted(nn.Module):
    """Elementwise, of classes and a weight a channel."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([[1.0], [0.9], [1.1]]))

    def forward(self, x, label, y):
        made = elementwise(x, label) * self.gain.view(-1, 1, 1)
        return made + 0.01 * y.to(x.dtype).view(-1, 1, 1, 1)


def decoded(z):
    """Images of twice the side."""
    return nn.functional.interpolate(z, scale_factor=2) * 0.5


def check_load(executor, batch, requests, steps, digits, capacity=3, seed=0):
    """Each result of `requests` is bit for bit that of its recipe, made without the others; where the network
    is batch invariant, that of a plain sampler. A recorded network is, whatever it is.

    steps    at most
    digits   how many go to the digits network, the others to one that is batch invariant
    """
    networks = {"digits": zoo.load_network("digits"), "exact": conditional(Weighted())}
    runs = {(name, None): own for name, own in networks.items()}
    runs |= {(name, "lora"): merged(networks[name], ADAPTERS[name]["lora"]) for name in networks}
    decoder = Decoder(decoded, scale_factor=2.0)
    recorded = executor == "native"
    by = Native() if recorded else "eager"  # each request alone
    draw = Draw(random.Random(seed), runs, steps, decoder, by)
    asked = random_requests(draw, requests, digits)
    ended = []
    how = {"batch": batch, "executor": executor, "decoder": decoder, "adapters": ADAPTERS}
    with Engine(networks, capacity, max_queue=requests, **how) as engine:
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
    assert {kind for about, _ in done for kind in kinds(about)} == KINDS.keys()
    for about, one in done:
        recipe, exact = one.recipe, recorded or about["network"] == "exact"
        assert (recipe["network_form"] is not None) == recorded
        if batch == "fixed" and not recorded:
            assert recipe["bucket"] >= 2 * capacity and recipe["calls"] is None
        elif recorded or (
            exact and len(one.samples) <= capacity
        ):  # more were never tried in one call
            assert recipe["bucket"] is recipe["calls"] is None
        if exact:
            again = draw.sampler(about).sample(**alone(about))
        else:
            own = runs[about["network"], about.get("adapter")]
            again = replayed(own, recipe, about, decoder)
        check_same(one, again, about)


def replayed(network, recipe, about, decoder):
    """A recipe, which went through JSON, and what it does not hold."""
    more = {name: about[name] for name in GIVEN if name in about}
    if "noise" in recipe["needs"]:
        more["noise"] = about["noise"]
    recipe = json.loads(json.dumps(recipe, allow_nan=False))
    return Sampler.replay(network, recipe, how={"decoder": decoder}, **more)


def check_same(one, other, about):
    """Every tensor of two results."""
    assert torch.equal(one.samples, other.samples), about
    assert torch.equal(one.latents, other.latents), about
    assert (one.rollout is None) == (other.rollout is None) == ("record" not in about)
    if one.rollout is not None:
        for name in ("log_prob", "trajectory", "mean", "std", "noise"):
            mine, its = getattr(one.rollout, name), getattr(other.rollout, name)
            assert mine is its is None or torch.equal(mine, its), (name, about)


def _result(handle):
    """None of a request that was cancelled."""
    try:
        return handle.result(WAIT)
    except Exception:
        if handle.status != "cancelled":
            raise
        return None
