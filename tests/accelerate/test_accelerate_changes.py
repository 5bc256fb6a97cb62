"""What is changed of a network after accelerate(): the changed network's results, or an error that says
where and what to do."""

import copy
import gc
import pickle
import threading
import weakref

import accelerate_cases as cases
import pytest
import torch
from accelerate_cases import close
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.accelerate import accelerate, accelerated
from diffusion_engine.accelerate import network as networks
from diffusion_engine.adapters.diffusers.networks import Model
from diffusion_engine.processes import VP

choose_fused, net, example = cases.choose_fused, cases.net, cases.example


def own(net):
    return ScoreNetwork(net, VP(), (3, 8, 8))


def samples(sampler):
    return sampler.sample(2, seed=3).samples


def rewritten(net):
    """Every weight times 1.1, in ways that neither an address nor a version shows."""
    for i, p in enumerate(net.parameters()):
        if i % 2:
            p.data.copy_(1.1 * p.data)
        else:
            p.detach().numpy()[...] *= 1.1


def hooked(net):
    net.head[1].register_forward_hook(lambda module, args, out: 0.5 * out)


def hooked_conv(net):
    net.block.conv2.register_forward_pre_hook(lambda module, args: (0.5 * args[0],))


def assigned(net):
    net.load_state_dict({k: 0.7 * v for k, v in net.state_dict().items()}, assign=True)


def replaced(net):
    net.block.conv1.weight = nn.Parameter(0.5 * net.block.conv1.weight.detach())


def normalised(net):
    nn.utils.parametrizations.weight_norm(net.block.conv1)
    with torch.no_grad():
        net.block.conv1.parametrizations.weight.original0.mul_(0.5)


def spectral(net):
    nn.utils.spectral_norm(net.stem)


def circular(net):
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
            module._reversed_padding_repeated_twice = [p for p in module.padding for _ in range(2)]


def swapped(net):
    net.head[1] = nn.GELU()


def inserted(net):
    net.head.insert(1, nn.Tanh())


def renormed(net):
    net.block.norm1.num_groups = 2


CHANGES = [
    rewritten, hooked, hooked_conv, assigned, replaced, normalised, spectral, circular, swapped, inserted,
    renormed,
]  # fmt: skip
NAMES = [change.__name__ for change in CHANGES]


@pytest.mark.parametrize("change", CHANGES, ids=NAMES)
def test_a_sampler_follows(net, change):
    fast = Sampler(own(net), "ddim", steps=2, accelerate=True)
    before = samples(fast)
    change(net)
    want = samples(Sampler(own(net), "ddim", steps=2))
    close(samples(fast), want)
    assert not torch.equal(want, before)
    rewritten(net)  # what was made again follows too
    close(samples(fast), samples(Sampler(own(net), "ddim", steps=2)))


@pytest.mark.parametrize("change", CHANGES, ids=NAMES)
def test_a_copy_in_another_dtype_follows(net, change):
    how = {"dtype": torch.float64}
    moved = Sampler(own(net), "ddim", steps=2, accelerate=change is rewritten, **how)
    for step in (lambda net: None, change, rewritten):
        step(net)
        close(samples(moved), samples(Sampler(own(net), "ddim", steps=2, **how)))


@pytest.mark.parametrize("how", [{"accelerate": True}, {"dtype": torch.float64}])
def test_what_ran_before_a_change_is_freed(net, how):
    made = Sampler(own(net), "ddim", steps=2, **how)
    samples(made)
    before = weakref.ref(made.network.module)
    hooked(net)
    samples(made)
    gc.collect()
    assert before() is None


@pytest.mark.parametrize("change", CHANGES, ids=NAMES)
def test_in_place_follows_or_says_where(net, example, change):
    done = accelerate(net, *example)
    change(net)
    if change in (rewritten, hooked):  # numpy and .data are documented
        done.refresh()
    plain = copy.deepcopy(net)
    accelerated(plain).restore()
    want = plain(*example).detach()
    try:
        with torch.no_grad():
            got = net(*example)
    except RuntimeError as error:
        assert "'block.conv1" in str(error) or "'head" in str(error) or "'stem'" in str(error)
        assert "accelerate() again" in str(error) or "refresh()" in str(error)
        done.restore()
        with torch.no_grad():
            got = net(*example)
    close(got, want)


class Scaled(nn.Module):
    """By a buffer, or by a tensor that is neither a parameter nor a buffer."""

    def __init__(self, net, buffer=False):
        super().__init__()
        self.net, self.scale = net, torch.tensor(0.5)
        if buffer:
            scale = self.__dict__.pop("scale")
            self.register_buffer("scale", scale)

    def forward(self, x, t):
        return self.scale.to(x.dtype) * self.net(x, t)


@pytest.mark.parametrize("buffer", [False, True])
@pytest.mark.parametrize("how", [{"accelerate": True}, {"dtype": torch.float64}], ids=str)
def test_a_tensor_that_is_no_parameter(net, how, buffer):
    module = Scaled(net, buffer).eval()
    fast = Sampler(own(module), "ddim", steps=2, **how)
    before = samples(fast)
    module.scale.numpy()[...] = 0.25
    got = samples(fast)
    close(got, samples(Sampler(own(module), "ddim", steps=2, dtype=how.get("dtype"))))
    assert not torch.equal(got, before)


class Told(nn.Module):
    """By options under their names."""

    def __init__(self, net):
        super().__init__()
        self.net, self.options = net, {"scale": 0.5}

    def forward(self, x, t):
        return self.options.get("scale", 1.0) * self.net(x, t)


def test_a_value_under_another_name(net):
    module = Told(net).eval()
    moved = Sampler(own(module), "ddim", steps=2, dtype=torch.float64)
    before = samples(moved)
    module.options["unused"] = module.options.pop("scale")
    got = samples(moved)
    close(got, samples(Sampler(own(module), "ddim", steps=2, dtype=torch.float64)))
    assert not torch.equal(got, before)


def test_a_change_in_another_thread(net):
    fast = Sampler(own(net), "ddim", steps=2, accelerate=True)
    samples(fast)
    thread = threading.Thread(target=rewritten, args=(net,))
    thread.start()
    thread.join()
    close(samples(fast), samples(Sampler(own(net), "ddim", steps=2)))


def test_a_choice_is_kept(net, monkeypatch):
    fast = Sampler(own(net), "ddim", steps=2, accelerate=True)
    samples(fast)
    monkeypatch.setattr(networks, "seconds", lambda *_: pytest.fail("it was timed again"))
    samples(fast)
    before = fast.network
    assert [key[0] for key in fast.executor._idle] == [before]
    tried, agree = [], networks._agree
    monkeypatch.setattr(networks, "_agree", lambda *both: tried.append(both) or agree(*both))
    replaced(net)
    samples(fast)
    assert len(tried) == 1  # the form that was chosen, no other
    assert fast.network is not before and fast.accelerated.chosen == "fused"
    assert [key[0] for key in fast.executor._idle] == [fast.network]
    now = fast.network
    net.block.norm1.eps = float("1e-5")  # the same value
    rewritten(net)
    samples(fast)
    assert fast.network is now


def test_training_mode_counts_for_nothing(net):
    """A module runs in eval mode, whichever it was left in, and is taken apart once."""
    fast = Sampler(own(net), "ddim", steps=2, accelerate=True)
    want, network = samples(fast), fast.network
    net.train()
    for _ in range(2):
        assert torch.equal(samples(fast), want) and fast.network is network
    assert net.training
    late = Sampler(own(net), "ddim", steps=2, accelerate=True)
    late.ready(2)
    assert late.accelerated.replacements and net.training
    network = late.network
    samples(late)
    net.eval()
    samples(late)
    assert late.network is network


class Inner(nn.Module):
    """Called as diffusers' networks are; what it drops shows whether it is in eval mode."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Dropout(0.5))

    def forward(self, x, label, return_dict=True):
        return (self.body(x),)


@pytest.mark.parametrize("how", [{}, {"accelerate": True}, {"compile": True}], ids=str)
def test_training_mode_within(how, monkeypatch):
    """Of a module that the engine calls through another."""
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    inner = Inner().eval()
    for module in (
        Model(inner, "class_labels", {}).eval(),
        Model(inner, "class_labels", {}).train(),
    ):
        fast = Sampler(own(module), "ddim", steps=2, **how)
        want, network = samples(fast), fast.network
        for training in (True, False):
            inner.train(training)
            assert torch.equal(samples(fast), want) and fast.network is network
            assert inner.training is training


@pytest.mark.parametrize("accelerate", [False, True])
def test_updated_weights_of_a_copy_stay(net, accelerate):
    other = {name: 0.5 * w for name, w in net.state_dict().items()}
    how = {"dtype": torch.float64, "accelerate": accelerate}
    moved = Sampler(own(net), "ddim", steps=2, **how)
    moved.update_weights(other)
    rewritten(net)
    got = samples(moved)
    net.load_state_dict(other)
    close(got, samples(Sampler(own(net), "ddim", steps=2, dtype=torch.float64)))


def test_updated_weights_reach_the_users_module(net):
    fast = Sampler(own(net), "ddim", steps=2, accelerate=True)
    samples(fast)
    fast.update_weights({name: 0.5 * w for name, w in net.state_dict().items()})
    close(samples(fast), samples(Sampler(own(net), "ddim", steps=2)))
    rewritten(net)
    close(samples(fast), samples(Sampler(own(net), "ddim", steps=2)))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, 3, 1), nn.SiLU())

    def forward(self, x, t):
        return self.head(x)


def test_compiled_sees_hooks():
    net = Small().eval()
    fast = Sampler(own(net), "ddim", steps=2, compile=True)
    fast.network.module._call[0] = torch.compile(net, dynamic=False, backend="eager")
    before = samples(fast)
    hooked(net)
    want = samples(Sampler(own(net), "ddim", steps=2))
    close(samples(fast), want)
    assert not torch.equal(want, before)


# Copies


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_of_an_accelerated_network(net, example, copied):
    done = accelerate(net, *example)
    with torch.no_grad():
        want = net(*example)
        for other in (copied(net), copied(done).module):
            assert accelerated(other).chosen == "fused" and accelerated(other).module is other
            assert torch.equal(other(*example), want)
            rewritten(other)
            accelerated(other).refresh()
            got = other(*example)
            accelerated(other).restore()
            close(got, other(*example))
        assert torch.equal(net(*example), want)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("how", [{"accelerate": True}, {"dtype": torch.float64}], ids=str)
def test_copies_of_what_a_sampler_runs(net, copied, how):
    fast = Sampler(own(net), "ddim", steps=2, **how)
    rewritten(net)
    derived = copied(fast._derived)
    assert derived.own.module is not net
    given = torch.ones(2, 3, 8, 8, dtype=how.get("dtype")), torch.ones(2)

    def check():
        with torch.no_grad():
            got = derived.follow()(*given, None)[0]
            close(got, copy.deepcopy(derived.own.module).to(got.dtype)(*given))

    check()
    hooked(derived.own.module)
    check()
    rewritten(derived.own.module)
    check()


def test_a_choice_that_is_broken_off_leaves_the_network(monkeypatch):
    def interrupted(suited, prepare, *_):
        prepare(max(suited, key=lambda name: name != "original"))
        raise KeyboardInterrupt

    net, x = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU()).eval(), torch.randn(2, 8, 6, 6)
    monkeypatch.setattr(networks, "seconds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        accelerate(net, x)
    assert "forward" not in vars(net) and not any("forward" in vars(part) for part in net)
