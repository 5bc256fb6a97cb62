"""Samplers and what they are made of as objects: copied, pickled, shared, left in training mode."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from diffusion_engine import Decoder, Sampler, ScoreNetwork
from diffusion_engine.adapters.vdm import MonotoneGamma
from diffusion_engine.executors import Eager, Graph
from diffusion_engine.executors.lru import Lru
from diffusion_engine.processes import (
    CLD,
    EDM,
    VDM,
    VE,
    VP,
    Discrete,
    FlowMatching,
    SubVP,
)  # fmt: skip

SHAPE = (3, 4, 4)


class Net(nn.Module):
    """Dropout in both its forms, and statistics: all that training mode changes."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5)
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(3, 3, 1, 1, generator=generator))
            self.conv.bias.zero_()

    def forward(self, x, label, *condition):
        h = self.drop(self.norm(self.conv(x)))
        return functional.dropout(h, 0.5, self.training)


def made(process=None, **options):
    return Sampler(ScoreNetwork(Net(), process or VP(), SHAPE, "v"), "ddim", 3, **options)


def copies(given):
    return copy.deepcopy(given), pickle.loads(pickle.dumps(given))


@pytest.mark.parametrize(
    "process",
    [
        VP(), SubVP(), VE(), EDM(), FlowMatching(), Discrete.linear(), VDM(), VDM.linear(),
        VDM.from_module(MonotoneGamma(hidden=4)),
    ],
    ids=lambda p: type(p).__name__,
)  # fmt: skip
def test_samplers_copy_and_pickle(process):
    given = made(process, guidance=[1.0, 1.0], decoder=Decoder(nn.Conv2d(3, 3, 1)))
    expected = given.sample(2, seed=5)
    for other in copies(given):
        assert torch.equal(other.sample(2, seed=5).samples, expected.samples)
        assert other.network.module is not given.network.module
        assert other.recipe() == given.recipe()


def test_what_a_sampler_is_made_of():
    given = made()
    result = given.sample(2)
    for other in copies(result):
        assert torch.equal(other.samples, result.samples) and other.recipe == result.recipe
    assert all(other == given.plan() for other in copies(given.plan()))
    assert given.plan().packed  # what runs keep with a plan does not travel
    assert all(not other.packed for other in copies(given.plan()))
    for other in copies(given.network):
        assert other.shape == SHAPE and other.memory_format is torch.contiguous_format
    cld = ScoreNetwork(Net(), CLD(), SHAPE, "velocity")
    assert all(other.process == CLD() for other in copies(cld))
    for other in copies(Graph("cpp", budget=1 << 20, whole_run=True)):
        assert (other.backend, other._kept.budget, other.whole_run) == ("cpp", 1 << 20, True)
        assert not other.between_rows
    assert all(other == Eager("torch") for other in copies(Eager("torch")))
    for other in copies(made(compile=True)):
        assert other.network.module.module.conv.weight.shape == (3, 3, 1, 1)


def child(sampler, connection):
    connection.send(sampler.sample(2, seed=5).samples.numpy())


def test_a_sampler_in_another_process():
    given = made()
    expected = given.sample(2, seed=5).samples  # its caches are not empty
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=child, args=(given, there))
    process.start()
    try:
        assert here.poll(120), "the process sent nothing"
        assert torch.equal(torch.from_numpy(here.recv()), expected)
    finally:
        process.join(60)
    assert process.exitcode == 0


def test_a_module_in_training_mode_runs_in_eval_mode():
    network = ScoreNetwork(Net(), VP(), SHAPE, "v")
    module = network.module
    module.norm.eval()  # a user's own choice
    before = copy.deepcopy(module.state_dict())
    sampler = Sampler(network, "ddim", 3)
    got = sampler.sample(2).samples
    assert (module.training, module.norm.training, module.drop.training) == (True, False, True)
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert torch.equal(got, sampler.sample(2).samples)
    module.eval()
    assert torch.equal(got, sampler.sample(2).samples)
    module.drop.train()  # on purpose: a module that is in eval mode itself
    assert not torch.equal(got, sampler.sample(2).samples)


def test_training_mode_comes_back_after_an_error():
    network = made().network
    with pytest.raises(RuntimeError, match="stop"):
        Sampler(network, "ddim", 3).sample(on_step=stop)
    assert all(part.training for part in network.module.modules())


def stop(progress):
    raise RuntimeError("stop")


def test_training_mode_of_what_threads_share():
    shared = Net()
    networks = [ScoreNetwork(nn.ModuleList([shared]), VP(), SHAPE, "v") for _ in range(3)]
    for network in networks:
        network.module.forward = shared.forward
    samplers = [Sampler(network, "ddim", 3) for network in networks]
    shared.eval()
    expected = samplers[0].sample(2).samples
    shared.train()
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(samplers[i % 3].sample, 2) for i in range(60)]
    assert all(torch.equal(run.result().samples, expected) for run in runs)
    assert all(part.training for part in shared.modules())


def test_a_decoder_in_training_mode():
    decoder = Decoder(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5)))
    z = torch.randn(2, *SHAPE)
    assert torch.equal(decoder(z), decoder(z)) and decoder.module[1].training


@pytest.mark.parametrize(
    "wrap",
    [
        lambda out: SimpleNamespace(sample=out),
        lambda out: {"sample": out, "hidden": None},
        lambda out: (out,),
        lambda out: [out],
    ],
    ids=["sample", "mapping", "tuple", "list"],
)
def test_kinds_of_outputs(wrap):
    def sampled(module):
        return Sampler(ScoreNetwork(module, VP(), SHAPE), "ddim", 3).sample(2).samples

    assert torch.equal(sampled(lambda x, t: wrap(x * 0.5)), sampled(lambda x, t: x * 0.5))


def test_an_output_of_diffusers():
    unet = pytest.importorskip("diffusers.models.unets.unet_2d")

    def module(x, label):
        return unet.UNet2DOutput(sample=x * 0.5)

    assert Sampler(ScoreNetwork(module, VP(), SHAPE), "ddim", 3).sample().finite == [True]


@pytest.mark.parametrize(
    "out, message",
    [
        (lambda x: None, "returned NoneType"),
        (lambda x: {"out": x, "loss": 0.0}, "returned dict with 'out', 'loss'"),
        (lambda x: (x, None), r"returned a tuple of \[1, 3, 4, 4\], NoneType"),
        (lambda x: (x, x.mean()), r"returned a tuple of \[1, 3, 4, 4\], \[\]"),
        (lambda x: (), "returned a tuple of nothing"),
        (lambda x: x.numpy(), "returned ndarray"),
    ],
)
def test_outputs_that_are_none(out, message):
    network = ScoreNetwork(lambda x, label: out(x), VP(), SHAPE)
    with pytest.raises(ValueError, match=message + ".*wrap the module"):
        Sampler(network, "ddim", 2).sample()


def test_plans_are_kept_within_bounds(monkeypatch):
    monkeypatch.setattr("diffusion_engine.sampler.plans.PLANS", 40)
    network = ScoreNetwork(lambda x, label, y: x * 0.5, VP(), SHAPE, null=3, classes=3)
    sampler = Sampler(network, "ddim", 4)
    scales = [1.0 + i / 32 for i in range(32)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(sampler.plan, scales))
    assert len(sampler._plans.kept) == 8  # of 5 rows each
    assert sampler.plan(scales[-1]) is sampler.plan(scales[-1])
    made = sampler.sample(32, condition=1, guidance=scales)
    assert made.finite == [True] * 32 and len(sampler._plans.kept) == 8
    long = Sampler(network, "ddim", 50)
    assert long.plan() is long.plan()  # one longer than the bound is kept alone


def test_a_copy_of_a_cache_is_empty():
    kept = Lru(10)
    kept.put("a", 1, 3)
    for other in copies(kept):
        assert len(other) == 0 and other.budget == 10 and other.put("b", 2, 10)
