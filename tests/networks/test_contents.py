"""What a module is made of: any change of it shows, and nothing else does."""

import pytest
import torch
from torch import nn

from diffusion_engine.networks.contents import Contents


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 1), nn.Sequential(nn.SiLU(), nn.Conv2d(3, 3, 1))
        self.register_buffer("shift", torch.zeros(3, 1, 1))
        self.scales, self.options = [0.5, 2.0], {"mode": "sum", "sizes": (3, 5), "seen": {1, 2}}
        self.name, self.scale, self.chosen, self.empty = "net", 1.5, None, []
        self.held = Held()


class Held:
    """An object that is no module."""

    def __init__(self):
        self.factor, self.kept = 2.0, {"bias": torch.ones(3)}


def hooked(net):
    net.last[0].register_forward_hook(lambda module, args, out: out)


def renamed(net):
    net.options["sort"] = net.options.pop("mode")


def swapped(net):
    net.last = nn.Sequential(net.last[1], net.last[0])


def reordered(net):
    modules = net.last._modules
    modules["0"], modules["1"] = modules["1"], modules["0"]


def exchanged(net):
    """Two parts of one kind under each other's names: their order is that of before."""
    net._modules = {"last": net._modules["first"], "first": net._modules["last"]}


CHANGES = {
    "a weight": lambda net: setattr(net.first, "weight", nn.Parameter(net.first.weight.detach().clone())),
    "a buffer": lambda net: setattr(net, "shift", torch.zeros(3, 1, 1)),
    "a module": lambda net: setattr(net, "first", nn.Conv2d(3, 3, 1)),
    "one more module": lambda net: net.last.append(nn.SiLU()),
    "one module less": lambda net: net.last.pop(1),
    "an order": swapped, "an order in place": reordered, "names": exchanged,
    "a hook": hooked,
    "a number": lambda net: setattr(net, "scale", 1.25),
    "a kind of number": lambda net: setattr(net.held, "factor", 2),
    "a string": lambda net: setattr(net, "name", "other"),
    "nothing to something": lambda net: setattr(net, "chosen", 0),
    "an entry": lambda net: net.scales.__setitem__(0, 0.25),
    "one more entry": lambda net: net.scales.append(0.0),
    "an entry of nothing": lambda net: net.empty.append(None),
    "one entry less": lambda net: net.scales.pop(),
    "an option": lambda net: net.options.update(mode="mean"),
    "one more option": lambda net: net.options.update(more=1),
    "an option's name": renamed,
    "a name alone": lambda net: net.held.kept.update(scale=net.held.kept.pop("bias")),
    "a tuple": lambda net: net.options.update(sizes=(3, 7)),
    "a set": lambda net: net.options["seen"].add(9),
    "an attribute": lambda net: setattr(net, "more", 1.0),
    "what an object holds": lambda net: setattr(net.held, "factor", 3.0),
    "a tensor that it keeps": lambda net: net.held.kept.update(bias=torch.ones(3)),
    "training mode": lambda net: net.last.train(),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_shows(name):
    net = Net().eval()
    contents = Contents.of(net)
    assert contents.same()
    CHANGES[name](net)
    assert not contents.same() and not contents.same()
    assert Contents.of(net).same()


def test_the_end_of_the_last_sequence():
    """Nothing that follows it would be out of its place."""
    for kept in ([], [1.0], [None, 2]):
        contents = Contents([], [[3.0], kept])
        assert contents.same()
        kept.append(None)
        assert not contents.same()
        kept.pop()
        assert contents.same()


def test_what_is_no_change():
    """Values of tensors, and numbers and strings that are equal to those before."""
    net = Net().eval()
    contents = Contents.of(net)
    with torch.no_grad():
        net.first.weight.mul_(2.0)
    net.shift.data = torch.ones(3, 1, 1)
    net.scale, net.name = float("1.5"), "".join(["n", "et"])
    net.scales[0] = float("0.5")
    assert contents.same()
    net.scale = 2.0
    assert not contents.same()
    net.scale = float("1.5")
    assert contents.same()


def test_its_tensors_are_each_there_once():
    net = Net().eval()
    net.again = net.first.weight
    found = Contents.of(net).tensors()
    wanted = [*net.parameters(), *net.buffers(), net.held.kept["bias"]]
    assert len(found) == len(wanted)
    assert {id(t) for t in found} == {id(t) for t in wanted}


def test_what_holds_itself():
    net = Net().eval()
    net.options["own"] = net.options
    net.held.net = net
    contents = Contents.of(net)
    assert contents.same()
    net.held.factor = 5.0
    assert not contents.same()
