"""Weights that a sampler is given: all of them or none, and its samples are then those of that network."""

import pytest
import torch
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP

SHAPE = (3, 4, 4)


class Net(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)
        self.register_buffer("shift", torch.rand(3, 1, 1))

    def forward(self, x, label):
        return self.last(self.first(x).tanh()) + self.shift


def samples(sampler):
    return sampler.sample(2, seed=3).samples


def sampler(module, **options):
    return Sampler(ScoreNetwork(module, VP(), SHAPE), "ddim", 3, **options)


HOW = {"plain": {}, "float64": {"dtype": torch.float64}, "accelerated": {"accelerate": True}}


@pytest.mark.parametrize("how", HOW)
def test_samples_are_those_of_the_weights(how):
    made, other = sampler(Net(0).eval(), **HOW[how]), Net(1).eval()
    before = samples(made)
    made.update_weights(other.state_dict())
    got, want = samples(made), samples(sampler(other, **HOW[how]))
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))
    assert not torch.allclose(got, before, rtol=1e-2)


def changed(weights, **others):
    return {name: tensor for name, tensor in (weights | others).items() if tensor is not None}


@pytest.mark.parametrize(
    "others, named",
    [
        ({"last.weight": torch.zeros(3, 4, 3, 3)}, "last.weight"),  # behind others that fit
        ({"last.bias": torch.zeros(1)}, "last.bias"),
        ({"last.bias": None}, "last.bias"),
        ({"shift": None}, "shift"),
        ({"shift": torch.zeros(3)}, "shift"),
        ({"more": torch.zeros(3)}, "more"),
        ({"last.weight": torch.full((3, 4, 1, 1), torch.inf)}, "last.weight"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(others, named):
    made = sampler(Net(0).eval())
    before = samples(made)
    with pytest.raises(ValueError, match=named):
        made.update_weights(changed(Net(1).state_dict(), **others))
    assert torch.equal(samples(made), before)


def test_a_copy_does_not_take_the_users_weights():
    """One in another dtype keeps what it was given; the module itself stays as it is."""
    own = Net(0).eval()
    weights = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    made = sampler(own, dtype=torch.float64)
    made.update_weights(Net(1).state_dict())
    assert all(torch.equal(own.state_dict()[name], tensor) for name, tensor in weights.items())
    plain = sampler(own)
    plain.update_weights(Net(1).state_dict())
    assert torch.equal(own.shift, Net(1).shift)


def test_what_has_no_weights():
    with pytest.raises(ValueError, match=r"function is no torch\.nn\.Module and has no weights"):
        sampler(lambda x, label: x).update_weights({})
