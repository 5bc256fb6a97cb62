"""What a request may give for a condition, and what it is told where it cannot be one."""

import math

import numpy as np
import pytest
import torch

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP
from diffusion_engine.testing import labelled_mixture as mixture


def told(null=None):
    """A network that adds up what it is told, whatever that is called."""

    def module(x, label, *given, **named):
        return 0.5 * x + sum(t.flatten(1).mean(1, keepdim=True) for t in (*given, *named.values()))

    return ScoreNetwork(module, VP(), (1,), null=null)


@pytest.mark.parametrize(
    "condition, message",
    [
        ("cat", "takes no prompt; got the prompt 'cat'"),
        ([None, 1], r"it is '\[None, 1\]'"),
        ({}, r"holds \[\] entries for 2 samples"),
        ({"y": None}, "and 'y' is 'None'"),
        ({"y": "cat"}, "and 'y' is 'cat'"),
        ({"y": torch.tensor(1.0)}, r"holds \[0\] entries for 2 samples"),
        ({"y": torch.zeros(2, 1), "z": torch.zeros(3, 1)}, r"holds \[2, 3\] entries"),
        (torch.zeros(()), r"has shape \[\] for 2 samples"),
    ],
)
def test_bad_conditions(condition, message):
    with pytest.raises(ValueError, match=message):
        Sampler(told(), "ddim", 2).sample(2, condition=condition)


@pytest.mark.parametrize(
    "null, condition, message",
    [
        (torch.zeros(4), torch.zeros(2, 5), r"\{'': \[5\]\} and the network's null condition \{'': \[4\]\}"),
        (0, torch.zeros(2, 4), r"null condition \{'': \[\]\}; give both the same"),
        (torch.zeros(4), {"y": torch.zeros(2, 4)}, r"names \['y'\] and the network's null condition none"),
        ({"y": torch.zeros(4)}, {"y": torch.zeros(2, 3)}, r"\{'y': \[3\]\} and the network's null"),
        ({"y": torch.zeros(4)}, {"z": torch.zeros(2, 4)}, r"names \['z'\] and .* \['y'\]"),
    ],
)  # fmt: skip
def test_a_null_condition_of_another_kind(null, condition, message):
    with pytest.raises(ValueError, match=message):
        Sampler(told(null), "ddim", 2, guidance=2.0).sample(2, condition=condition)


@pytest.mark.parametrize(
    "null, known",
    [(None, range(10)), (10, range(11)), (3, range(10)), (torch.tensor(10), range(11))],
    ids=["none", "behind", "within", "tensor"],
)
def test_classes_that_a_network_knows(null, known):
    """Those of its embedding: 0 to classes - 1, and the null class where that is one more."""

    def module(x, label, y):
        return 0.5 * x + y.to(x.dtype).view(-1, 1)

    network = ScoreNetwork(module, VP(), (1,), null=null, classes=10)
    sampler = Sampler(network, "ddim", 2)
    for y in range(-2, 13):
        if y in known:
            assert sampler.sample(condition=[y]).recipe["condition"] == [y]
            continue
        for given in (y, [y], torch.tensor([0, y])):
            with pytest.raises(ValueError, match="the network knows classes 0 to 9; got"):
                sampler.sample(condition=given)


def test_null_is_what_a_network_is_told_without_a_condition():
    seen = []

    def module(x, label, y):
        seen.append(y.tolist())
        return 0.5 * x

    for null in (10, torch.tensor([0.5, 0.25])):
        network = ScoreNetwork(module, VP(), (1,), null=null)
        Sampler(network, "ddim", 1, batch_size=2).sample(3)
        want = null if isinstance(null, int) else null.tolist()
        assert seen == [[want] * 2, [want]]
        seen.clear()


def test_a_tensor_without_a_name_is_as_the_null_is():
    """Retrieval(name="") makes such conditions, of a network whose null is a tensor or a mapping."""
    y = torch.rand(2, 4)
    for null in (torch.zeros(4), {"": torch.zeros(4)}):
        sampler = Sampler(told(null), "ddim", 3, guidance=2.0)
        plain = Sampler(told(torch.zeros(4)), "ddim", 3, guidance=2.0).sample(condition=y)
        assert torch.equal(sampler.sample(condition={"": y}).samples, plain.samples)


def test_a_tensor_is_given_again_to_a_recipe():
    network, y = told(torch.zeros(4)), torch.rand(2, 4)
    made = Sampler(network, "ddim", 3, guidance=2.0).sample(condition=y)
    assert made.recipe["condition"] is None and made.recipe["needs"] == ["condition"]
    with pytest.raises(ValueError, match="made with condition; give"):
        Sampler.replay(network, made.recipe)
    assert torch.equal(Sampler.replay(network, made.recipe, condition=y).samples, made.samples)


def test_values_of_a_mapping_may_be_lists():
    sampler = Sampler(told({"y": torch.zeros(1)}), "ddim", 3, guidance=2.0)
    made = sampler.sample(condition={"y": [[0.1], [0.4]]}).samples
    assert torch.equal(made, sampler.sample(condition={"y": torch.tensor([[0.1], [0.4]])}).samples)


@pytest.mark.parametrize(
    "scale", [2, np.float32(2.0), torch.tensor(2.0), torch.tensor([2.0, 2.0]), (2.0, 2)]
)
def test_a_scale_of_any_kind_of_number(scale):
    want = Sampler(mixture(), "ddim", 3, guidance=2.0).sample(2, condition=[0, 1])
    made = Sampler(mixture(), "ddim", 3, guidance=scale).sample(2, condition=[0, 1])
    assert torch.equal(made.samples, want.samples)
    assert made.recipe["guidance"] == [2.0, 2.0]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"guidance": None}, "guidance=None: give one number, or one a sample"),
        ({"guidance": []}, r"guidance=\[\]: give one number"),
        ({"guidance": "two"}, "guidance='two'"),
        ({"interval": 0.3}, "interval=0.3: give two noise-to-signal ratios"),
        ({"interval": (0.1, 1.0, 2.0)}, "give two noise-to-signal ratios"),
        ({"interval": (math.nan, 2.0)}, "0 <= low < high"),
        ({"classifier_scale": 4.0}, "the network has no classifier; give the one of"),
        ({"clip": 1.0}, r"clip=1.0: give a range \(low, high\)"),
        ({"clip": (1.0, -1.0)}, "with low < high"),
        ({"clip": (math.nan, 1.0)}, "with low < high"),
        ({"clip": "net"}, "clip='net'"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Sampler(mixture(), "ddim", 3, **options)
