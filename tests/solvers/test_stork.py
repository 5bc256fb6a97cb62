"""STORK: its stages' places and weights, the published scheduler's samples, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stork_cases import START, TIMES, denoised

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP, Discrete, FlowMatching
from diffusion_engine.solvers import solver
from diffusion_engine.solvers.stork import form_of, gegenbauer

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "stork.json").read_text())


def flow(**options):
    network = ScoreNetwork(
        lambda x, t: denoised(x, t.view(-1, 1)), FlowMatching(), (4,), prediction="x0"
    )
    how = {"times": TIMES, "dtype": torch.float64, "backend": "torch"}
    x = torch.tensor([START], dtype=torch.float64)
    return Sampler(network, "stork", **how, **options).sample(x=x, noised=True).samples[0]


def test_the_published_schedulers_samples():
    theirs = torch.tensor(GOLDEN, dtype=torch.float64)
    ours = flow(start="half", published=True)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)  # its float32
    assert not torch.allclose(flow(start="half"), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stages", [2, 3, 10, 50])
def test_stages_integrate_straight_slopes(stages):
    """1 and u are integrated exactly where the stages lie at their row sums; as published 1 alone is."""
    process = FlowMatching()
    form = form_of("flow", process, [process.at(0.9), process.at(0.2)])
    nodes, end = [0.5, 0.7], 0.4
    for published in (False, True):
        a, w = gegenbauer(form, nodes, end, stages, published)
        assert a == pytest.approx(1.0, abs=1e-12)
        assert w.sum() == pytest.approx(end - 0.5, abs=1e-14)
        straight = float(w @ nodes) == pytest.approx((end**2 - 0.5**2) / 2.0, abs=1e-14)
        assert straight is not published


def test_four_is_adams_bashforth():
    """In equal steps from the third on."""
    process = FlowMatching()
    points = [process.at(t) for t in (0.9, 0.7, 0.5, 0.3)]
    last = list(solver("stork", max_order=4).updates(process, points))[-1].new[0]
    way = -0.2 * np.array([23.0, -16.0, 5.0]) / 12.0
    assert last["D"] == pytest.approx(-way[0] / 0.5, abs=1e-12)
    kept = sorted(w for symbol, w in last if symbol in ("S1", "S2"))
    assert kept == pytest.approx(sorted(way[1:]), abs=1e-12)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"max_order": 3}, "max_order=3: choose 2, 4"),
        ({"taylor": 0}, "taylor=0: choose 1, 2, 3"),
        ({"stages": 1}, "stages=1: a step has 2 to 1000"),
        ({"start": "heun"}, "choose euler, half"),
        ({"coordinates": "lam"}, "choose auto, flow, edm, time"),
        ({"max_order": 4, "coordinates": "time"}, "needs the tables of ROCK4"),
    ],
)
def test_what_is_no_option(options, said):
    with pytest.raises(ValueError, match=said):
        solver("stork", **options)


def test_what_time_needs():
    network = ScoreNetwork(lambda x, t: x, Discrete.linear(), (1,))
    with pytest.raises(ValueError, match="no drift"):
        Sampler(network, "stork", 4, coordinates="time")
    Sampler(network, "stork", 4)
    network = ScoreNetwork(lambda x, t: x, VP(), (1,))
    with pytest.raises(ValueError, match="it goes by t"):
        Sampler(network, "stork", sigmas=[500.0, 1.0, 0.0])
