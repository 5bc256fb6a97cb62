"""Fixtures that keep times from deciding, a network with a module of every kind, and what was run."""

import pytest
import torch
from accelerate_cases import Net, choose_form

from diffusion_engine.accelerate import choose, network
from diffusion_engine.ops import launches


@pytest.fixture
def ran(monkeypatch):
    """The names of the fused ops that were run."""
    names, run = [], launches.call
    monkeypatch.setattr(launches, "call", lambda op, *given: (names.append(op), run(op, *given))[1])
    return names


# diffusers


@pytest.fixture
def diffusers():
    return pytest.importorskip("diffusers", reason="diffusers is not installed")


@pytest.fixture(autouse=True)
def choose_fused(monkeypatch):
    """Times decide what stays, which a test cannot rely on: the fused network does, with our own
    convolutions."""
    monkeypatch.setattr(choose, "BUDGET", 0.0)
    choose_form(monkeypatch, max)
    monkeypatch.setattr(
        network,
        "min",
        lambda times, key: "fused" if "fused" in times else "original",
        raising=False,
    )


@pytest.fixture
def net():
    torch.manual_seed(0)
    made = Net().eval()
    for p in made.parameters():
        p.data = torch.randn_like(p) * 0.3
    return made


@pytest.fixture
def example():
    torch.manual_seed(1)
    return torch.randn(2, 3, 9, 7), torch.tensor([0.3, 0.8])
