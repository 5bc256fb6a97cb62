"""executor="onnxruntime" and "openvino": the samples are torch's, whatever a call is made of."""

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from native_cases import gradient, small
from optional import needs
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.engine import Engine
from diffusion_engine.networks.decoder import Decoder
from diffusion_engine.processes import VP
from diffusion_engine.providers import OnnxRuntime, OpenVINO, export

GIVEN = {"seeds": [1, 2, 3], "condition": [0, 1, 0], "guidance": 2.0}
WAIT = 120


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def executor(request):
    """One of each, which keeps what it opened."""
    needs("onnx"), needs("onnxscript")
    if request.param == "openvino":
        needs("openvino")
        return OpenVINO(threads=1)
    needs("onnxruntime")
    return OnnxRuntime(threads=1)


@pytest.fixture(scope="module")
def network():
    return small()


def close(own, executor, given=None, solver="ddim", **how):
    """The samples, which are those of torch within rounding."""
    given = GIVEN if given is None else given
    made = Sampler(own, solver, 3, executor=executor, **how).sample(**given)
    want = Sampler(own, solver, 3, **how).sample(**given)
    off = (made.samples - want.samples).abs().max()  # torch's own sums differ by processor
    assert off <= 1e-5 * want.samples.abs().max()
    return made


def test_samples_are_those_of_torch(network, executor):
    made = close(network, executor)
    assert made.recipe["network_form"] == f"{executor.name}/{executor.version}/float32"
    assert made.recipe["threads"] == 1 and made.recipe["dtype"] == "float32"
    assert executor.packed(network) > 0


ASKED = {
    "alone": {"n": 1, "seed": 4, "condition": 1},
    "guided each": {"n": 3, "condition": [0, 1, 1], "guidance": [1.0, 2.0, 3.0]},
    "latents": {"x": torch.randn(2, 1, 6, 5), "noised": True, "condition": 1},
    "parts": {"n": 5, "condition": 0, "batch_size": 2},
    "masked": {"n": 2, "condition": 1, "mask": torch.eye(6, 5)[None], "known": torch.ones(1, 6, 5)},
}


@pytest.mark.parametrize("given", ASKED)
def test_what_is_asked_of_a_sampler(network, executor, given):
    close(network, executor, ASKED[given])


def test_what_a_sampler_has(network, executor):
    """A solver of several calls, an adaptive driver, a decoder and callbacks."""
    close(network, executor, solver="heun")
    close(network, executor, {"n": 2, "condition": 1, "seed": 2}, driver="adaptive")
    made = close(network, executor, decoder=Decoder(nn.Upsample(scale_factor=2), scale_factor=1.0))
    assert made.samples.shape == (3, 1, 12, 10)
    steps = []
    sampler = Sampler(network, "ddim", 3, executor=executor)
    sampler.sample(**GIVEN, on_step=lambda progress: steps.append(progress))
    assert len(steps) == 3


def test_one_export_is_for_both(network, executor):
    close(network, executor)
    assert len(export._known[network]) == 1


def test_copies_and_pickles(network, executor):
    sampler = Sampler(network, "ddim", 3, executor=executor)
    made = sampler.sample(**GIVEN).samples
    again = copy.deepcopy(sampler)
    assert torch.allclose(again.sample(**GIVEN).samples, made, rtol=1e-4, atol=1e-4)
    assert again.executor is not executor
    other = pickle.loads(pickle.dumps(executor))
    assert (type(other), other.threads, other.dtype) == (type(executor), 1, torch.float32)


def test_threads_share_an_executor(network, executor):
    sampler = Sampler(network, "ddim", 3, executor=executor)
    want = sampler.sample(8, condition=[0, 1] * 4).samples
    seeds = [[i % 8, (i + 3) % 8] for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(sampler.sample, seeds=two, condition=[s % 2 for s in two]) for two in seeds
        ]
        for two, one in zip(seeds, asked, strict=True):
            assert torch.allclose(one.result(WAIT).samples, want[two], rtol=1e-4, atol=1e-4)


def test_an_engine(network, executor):
    given = {"condition": [1, 2, 0], "guidance": 2.0, "seed": 3}
    want = Sampler(network, "ddim", 3).sample(**given).samples
    with Engine(network, capacity=3, executor=executor) as engine:
        spec = {"solver": "ddim", "steps": 3}
        handles = [engine.submit(spec, **given), engine.submit(spec, condition=1, seed=9)]
        made = [handle.result(WAIT) for handle in handles]
    assert torch.allclose(made[0].samples, want, rtol=1e-4, atol=1e-4)
    recipe = json.loads(json.dumps(made[0].recipe))
    again = Sampler.replay(network, recipe, how={"executor": executor})
    assert torch.allclose(again.samples, want, rtol=1e-4, atol=1e-4)


def test_a_recipe_names_it(network, executor):
    made = close(network, executor)
    recipe = json.loads(json.dumps(made.recipe))
    again = Sampler.replay(network, recipe)
    assert torch.allclose(again.samples, made.samples, rtol=1e-4, atol=1e-4)
    assert again.recipe == made.recipe


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "native"])
def test_threads_that_were_measured_are_replayed(network, name):
    made = Sampler(network, "ddim", 3, executor=name).sample(**GIVEN)
    recipe = json.loads(json.dumps(made.recipe))
    assert isinstance(recipe["threads"], dict)
    for how in ({}, {"executor": name}, {"executor": "auto"}):
        again = Sampler.replay(network, recipe, how=how)
        assert torch.equal(again.samples, made.samples) and again.recipe == made.recipe


def test_a_network_that_differentiates(executor):
    own = gradient()
    made = Sampler(own, "ddim", 3, executor=executor).sample(**GIVEN)
    want = Sampler(own, "ddim", 3).sample(**GIVEN)
    assert torch.equal(made.samples, want.samples) and made.recipe == want.recipe


class Many(nn.Module):
    """Of everything that a call may have: conditions by name, several outputs, labels of any kind."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.told = nn.Linear(5, 4)

    def forward(self, x, label, text, keep):
        h = self.conv(x) + (self.told(text) * keep[:, None])[:, :, None, None]
        return h[:, :2] * torch.cos(label.float())[:, None, None, None], h[:, 2:]


@cache
def many(dtype):
    torch.manual_seed(3)
    return ScoreNetwork(
        Many(), VP(), (2, 4, 3), label_dtype=dtype, memory_format=torch.channels_last,
        label=lambda point: 999 * point.t if dtype == torch.float64 else round(9 * point.t),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_calls_of_many_kinds(executor, dtype):
    condition = {"text": torch.randn(3, 5), "keep": torch.tensor([True, False, True])}
    close(many(dtype), executor, {"condition": condition, "seed": 1})


def by_size(x, label):
    return x * float(len(x)) if len(x) < 3 else x - 1


FIXED = ScoreNetwork(by_size, VP(), (1, 2, 2))


def test_a_batch_that_is_a_number_in_the_graph(executor):
    for n in (2, 4):
        close(FIXED, executor, {"n": n, "seed": 1})


def test_more_sizes_than_have_a_session_of_their_own(network, executor):
    sampler = Sampler(network, "ddim", 1, executor=executor)
    want = Sampler(network, "ddim", 1)
    for n in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12):
        given = {"n": n, "seed": 1, "condition": 1}
        made = sampler.sample(**given).samples
        assert torch.allclose(made, want.sample(**given).samples, rtol=1e-4, atol=1e-4)
    (opened,) = executor.made(network)
    assert len(opened.sessions.all) <= 9
