"""The networks that are timed are those of the papers, and the ops are timed at their shapes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import shapes
from benchmarks.runs.networks import diffusers, weights
from benchmarks.runs.networks.calls import calls
from benchmarks.runs.networks.ddpmpp import DDPMpp
from benchmarks.runs.networks.ncsnpp import NCSNpp


def test_the_shapes_of_w1_are_those_of_diffusers():
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    with torch.device("meta"):
        network, x = diffusers.ddpm_cifar10(), torch.empty(1, 3, 32, 32)
        found = calls(network, x, torch.zeros(1, dtype=torch.int64))
    convolved = {key[1:] for key in found if key[0] == "conv3x3"}
    assert convolved == set(shapes.CONVOLUTIONS["W1"])
    norms = {(key[1], key[3]) for key in found if key[0] == "group_norm"}
    attentions = {key[1:] for key in found if key[0] == "attention"}
    assert norms == set(shapes.NORMS["W1"]) and attentions == set(shapes.ATTENTIONS["W1"])


def test_w3_is_the_network_of_its_figures():
    with torch.device("meta"):
        network, x, t = NCSNpp(), torch.empty(1, 6, 32, 32), torch.empty(1)
        found = calls(network, x, t)
    assert sum(p.numel() for p in network.parameters()) == 107_597_318
    norms = {(key[1], key[3]) for key in found if key[0] == "group_norm"}
    attentions = {key[1:] for key in found if key[0] == "attention"}
    assert norms == set(shapes.NORMS["W3"]) and attentions == set(shapes.ATTENTIONS["W3"])
    assert weights(NCSNpp())(torch.randn(1, 6, 32, 32), torch.ones(1)).isfinite().all()


def test_random_weights_keep_the_size_of_values():
    torch.manual_seed(0)
    network = weights(torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(6))))
    out = network(torch.randn(512, 64))
    assert 0.5 < float(out.std()) < 2.0


def test_w2_is_the_network_of_the_paper():
    """Its 55.73 M parameters, 42.4 GFLOP, and the shapes that its ops are timed at."""
    with torch.device("meta"):
        network, x, t = DDPMpp(), torch.empty(1, 3, 32, 32), torch.tensor(0)
        found = calls(network, x, t)
        with FlopCounterMode(display=False) as counter:
            network(x, t)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 55.73
    assert round(counter.get_total_flops() / 1e9, 1) == 42.4
    assert {(k[1], k[3]) for k in found if k[0] == "group_norm"} == set(shapes.NORMS["W2"])
    assert {k[1:] for k in found if k[0] == "attention"} == set(shapes.ATTENTIONS["W2"])
