"""What held-out digits cost."""

import pytest
import torch

from diffusion_engine.drivers.likelihood_bound import variational_bound
from diffusion_engine.evaluation.bits import Bits, bits_per_dim, held_out
from diffusion_engine.processes import VDM
from diffusion_engine.testing import Gaussian
from diffusion_engine.training import data


@pytest.fixture(autouse=True)
def drawings(monkeypatch):
    """A digit's label is its brightness."""
    labels = torch.tensor([2, 0, 1, 1, 0, 2])
    images = (labels / 5.0).view(-1, 1, 1, 1).expand(-1, 1, 32, 32).clone()
    monkeypatch.setattr(data, "mnist", lambda split: (images, labels))


def test_digits_in_turn():
    images, labels = held_out(5)
    assert labels.tolist() == [0, 1, 2, 0, 1]
    assert images[:3, 0, 0, 0].tolist() == [0, 51, 102]
    with pytest.raises(ValueError, match="6 images were held out; ask for no more"):
        held_out(7)
    with pytest.raises(ValueError, match="measure 1 image or more"):
        held_out(0)


def test_a_vdm_is_measured_by_its_bound():
    network = Gaussian(-0.8, 0.2).network(VDM(), shape=(1, 32, 32), prediction="eps")
    made = bits_per_dim(network, 2, seed=3)
    bound = variational_bound(network, held_out(2)[0], times=32, seed=3)
    assert made == Bits(bound.mean, bound.standard_error, True)


def test_others_by_their_ode():
    from diffusion_engine.processes import VP

    network = Gaussian(-0.8, 0.2).network(VP(), shape=(1, 32, 32), prediction="eps")
    made = bits_per_dim(network, 2)
    assert not made.bound and 3.0 < made.mean < 9.0
    assert bits_per_dim(network, 2, bound=True).bound
