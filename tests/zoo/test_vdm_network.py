"""VDM's network: its schedule rises whatever its weights, and is that of the card's process."""

import numpy as np
import pytest
import torch

from diffusion_engine import zoo
from diffusion_engine.zoo.vdm import GAMMAS, LearnedGamma

CARD = {
    "architecture": {
        "name": "vdm_unet", "channels": [8, 8, 32], "emb": 16, "classes": 10, "exponents": [6, 7],
    },
    "prediction": "eps",
    "label": "gamma",
    "process": {"name": "vdm", "gamma": "gamma"},
    "shape": [1, 32, 32],
    "classes": [str(i) for i in range(10)],
    "null": 10,
}  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_the_schedule_rises_between_its_ends_whatever_its_weights(seed):
    torch.manual_seed(seed)
    gamma = LearnedGamma(hidden=16).double()
    with torch.no_grad():
        for parameter in gamma.shape.parameters():
            parameter.normal_()
        made = gamma(torch.linspace(0.0, 1.0, 200, dtype=torch.float64))
    assert (made.diff() > 0.0).all()
    assert made[[0, -1]].tolist() == pytest.approx(GAMMAS, rel=1e-6)


def test_a_fresh_schedule_is_nearly_straight():
    t = torch.linspace(0.0, 1.0, 50)
    with torch.no_grad():
        found = LearnedGamma()(t)
    torch.testing.assert_close(found, GAMMAS[0] + (GAMMAS[1] - GAMMAS[0]) * t, rtol=0.0, atol=0.05)


def test_the_schedule_lies_in_the_file_and_is_the_process(tmp_path):
    module = zoo.build(CARD["architecture"])
    with torch.no_grad():
        module.gamma.ends.copy_(torch.tensor([-11.0, 4.0]))
    zoo.save(tmp_path / "own.safetensors", module, CARD)
    network = zoo.load_network(tmp_path / "own.safetensors")
    assert -2.0 * network.process.lam(np.array([0.0, 1.0])) == pytest.approx([-11.0, 4.0])


def test_grey_levels_that_differ_in_one_bit_look_different_to_it():
    """Through the waves alone: the network's other input is cut."""
    torch.manual_seed(0)
    module = zoo.build(CARD["architecture"] | {"learned": False})
    assert not hasattr(module, "gamma")
    with torch.no_grad():
        module.carried.bias.fill_(1.0)
        told = [
            module(torch.full((1, 1, 8, 8), z), torch.tensor([-13.3]), torch.tensor([10]))
            for z in (0.0, 1.0 / 512)
        ]
    assert float((told[0] - told[1]).abs().min()) > 0.4
