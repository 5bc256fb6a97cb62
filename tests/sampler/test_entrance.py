"""Numbers, tensors and names that samplers and requests get: what users mean, or a sentence."""

import json

import numpy as np
import pytest
import torch
from entrance_cases import INF, NAN, SHAPE, net, refused
from native_cases import small
from torch import nn

from diffusion_engine import (
    Decoder,
    Sampler,
    ScoreNetwork,
    classifier_free,
    classifier_guidance,
    compose,
    linearized,
    profile,
)
from diffusion_engine.executors import Graph
from diffusion_engine.networks.condition import ScaleEmbedding
from diffusion_engine.processes import (
    CLD,
    VP,
    Point,
)
from diffusion_engine.solvers import solver

IMAGE = torch.linspace(-1.0, 1.0, 24).reshape(SHAPE)


def labelled():
    return net(null=10, classes=10)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": "20"}, "steps='20': a run has a whole number"),
        ({"steps": True}, "steps=True"),
        ({"grid": ""}, "unknown grid ''"),
        ({"grid": 5}, "grid=5: give a name, or a function"),
        ({"grid": "karas"}, "did you mean karras"),
        ({"grid": lambda process, n: 0.5}, "the grid's times=0.5: give a name, or a function"),
        ({"grid": lambda process, n: None}, "the grid's times=None"),
        (
            {"times": [Point(1.0, 0.1, 0.9), Point(0.5, 0.5, -0.5)]},
            "sigma=-0.5.* is no noise level",
        ),
        ({"times": [Point(1.0, 0.1, 0.9), Point(0.5, NAN, 0.5)]}, "alpha=nan.* is no noise level"),
        ({"solver": "dpmp_2m"}, "did you mean dpmpp_2m"),
        ({"times": [1500, 500, -1]}, "t=1500 is no time of VP"),
        ({"times": [0.5, -0.1]}, "t=-0.1 is no time of VP"),
        ({"times": ["0.5", "0.1"]}, r"times\[0\]='0.5': give a finite number"),
        ({"times": 0.5}, "times=0.5: give descending times"),
        ({"times": [0.5, NAN]}, r"times\[1\]=nan"),
        ({"sigmas": "1"}, "sigmas='1': give descending"),
        ({"sigmas": [1.0, None]}, r"sigmas\[1\]=None"),
        ({"guidance": "2"}, "guidance='2': give one number"),
        ({"guidance": [1.0, NAN]}, r"guidance\[1\]=nan"),
        ({"guidance": INF}, "guidance=inf"),
        ({"guidance": True}, "guidance=True"),
        ({"interval": (3.0, 0.3)}, "0 <= low < high"),
        ({"interval": (NAN, 1.0)}, "interval=nan"),
        ({"interval": 3.0}, "interval=3.0: give two"),
        ({"clip": (1.0, -1.0)}, "clip=.*low < high"),
        ({"clip": (NAN, 1.0)}, "clip=nan"),
        ({"clip": "net"}, "clip='net'"),
        ({"classifier_scale": "1"}, "classifier_scale='1'"),
        ({"batch_size": 2.5}, "batch_size=2.5: at least 1"),
        ({"batch_size": "8"}, "batch_size='8'"),
        ({"accelerate": "no"}, "accelerate='no': give True or False"),
        ({"compile": 2}, "compile=2: give True or False"),
        ({"dtype": "bf16"}, "dtype='bf16': a network computes in float32, bfloat16"),
        ({"dtype": torch.int8}, "dtype=torch.int8"),
        ({"device": "gpu"}, "device='gpu' cannot be used here"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used here"),
        ({"executor": 3}, "executor=3; choose eager, graph, native, onnxruntime"),
        ({"step": 20}, "has no option step; it has .*; did you mean steps"),
        ({"solver": solver("ddim"), "guidence": 2.0}, "did you mean guidance"),  # codespell:ignore
        ({"solver": "ddim", "eta": "abc"}, "eta='abc': give a finite number"),
        ({"solver": "ddim", "eta": NAN}, "eta=nan"),
        ({"solver": "ddim", "clipped_eps": "no"}, "clipped_eps='no': give True or False"),
        ({"solver": "unipc", "max_order": 2.5}, "max_order=2.5: give an integer"),
        ({"solver": "heun", "s_churn": INF}, "s_churn=inf"),
    ],
)
def test_sampler(options, message):
    refused(message, Sampler, net(), **{"steps": 2, **options})


def test_a_module_that_is_not_wrapped():
    refused("network=Conv2d: wrap the module in ScoreNetwork", Sampler, nn.Conv2d(3, 3, 1))


@pytest.mark.parametrize("executor", ["eager", "native", "openvino", "auto"])
def test_a_module_without_values(executor):
    network = small().with_module(small().module.to("meta"))
    refused("device 'meta', which holds no values", Sampler, network, executor=executor)
    refused("device 'meta', which holds no values", Sampler, network, device="cpu")


FREE = torch.ones(2, 4)


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"n": 2.5}, "n=2.5: ask for at least 1"),
        ({"n": "2"}, "n='2'"),
        ({"n": True}, "n=True"),
        ({"seed": 1.7}, "seed=1.7: a seed lies in"),
        ({"seed": "123"}, "seed='123'"),
        ({"seed": True}, "seed=True"),
        ({"seeds": [1, 2.0]}, r"seeds\[1\]=2.0"),
        ({"seeds": ["1"]}, r"seeds\[0\]='1'"),
        ({"seeds": "123"}, "seeds='123': give one seed a sample"),
        ({"seeds": 5}, "seeds=5: give one seed a sample"),
        ({"seeds": torch.tensor([0.5])}, r"seeds\[0\]=0.5"),
        ({"seeds": [2**64]}, "a seed lies in"),
        ({"condition": []}, "n=0: ask for at least 1"),
        ({"condition": [3, -1]}, r"classes 0 to 9; got \[3, -1\]"),
        ({"condition": True}, "classes 0 to 9; got True|got \\[True\\]"),
        ({"x": torch.zeros(0, *SHAPE), "start": 0.5}, "x has shape .* holds no image"),
        ({"x": IMAGE[0], "start": 0.5}, r"x has shape \[2, 4\]; it has to fit"),
        ({"x": IMAGE.log(), "start": 0.5}, "x holds NaN or infinity"),
        ({"x": torch.zeros(1, *SHAPE, dtype=torch.uint8), "start": 0.5}, "x holds torch.uint8"),
        ({"x": np.zeros((1, *SHAPE), int), "start": 0.5}, "x holds torch.int64"),
        ({"x": "image.png", "start": 0.5}, "x='image.png': give a tensor"),
        ({"x": IMAGE, "start": 1.3}, "t=1.3 is no time of VP"),
        ({"x": IMAGE, "start": -0.1}, "t=-0.1 is no time of VP"),
        ({"x": IMAGE, "start": NAN}, "start=nan"),
        ({"x": IMAGE, "start": "0.5"}, "start='0.5': give a time"),
        ({"x": IMAGE, "noised": "no"}, "noised='no': give True or False"),
        ({"mask": FREE * 255, "known": IMAGE}, "the mask holds torch.float32 outside 0 to 1"),
        ({"mask": FREE * NAN, "known": IMAGE}, "outside 0 to 1"),
        ({"mask": FREE.long() * 255, "known": IMAGE}, "the mask holds torch.int64"),
        ({"mask": FREE * 1j, "known": IMAGE}, "the mask holds torch.complex64"),
        ({"mask": FREE * 0.5, "known": IMAGE.log()}, "known holds NaN or infinity where the mask"),
        ({"mask": FREE, "known": IMAGE.byte()}, "known holds torch.uint8"),
        ({"condition": 1, "guidance": "2"}, "guidance='2'"),
        ({"condition": 1, "guidance": INF}, "guidance=inf"),
        ({"compose": [(1, "1")]}, "weight='1'"),
        ({"compose": [(1, [NAN])]}, r"weight\[0\]=nan"),
        ({"noise": "white"}, "noise='white': give 'brownian'"),
        ({"noise": torch.zeros(3, 1, 1, *SHAPE, dtype=torch.int64)}, "noise=Tensor .*: give"),
        ({"noise": torch.zeros(3, 1, 1, 4)}, r"noise of row 0, draw 0 is \[1, 4\]; give"),
        (
            {"noise": lambda row, m, seeds: IMAGE},
            r"draw 0 is \[3, 2, 4\]; give a tensor \[1, 3, 2, 4\]",
        ),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"every": 0.5}, "every=0.5: call on_step"),
        ({"on_step": 3}, "on_step=3: give a function"),
        ({"progress": "no"}, "progress='no': give True or False"),
        ({"sed": 3}, "sample takes no sed; did you mean seed"),
        ({"batchsize": 3}, "did you mean batch_size"),
    ],
)
def test_requests(request_, message):
    refused(message, Sampler(labelled(), steps=2).sample, **request_)


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"refine": -1}, "refine=-1"),
        ({"refine": 1.5}, "refine=1.5"),
        ({"refine": True}, "refine=True"),
        ({"start": 2.0}, "t=2 is no time of VP"),
        ({"conditon": 3}, "encode takes no conditon.*did you mean condition"),  # codespell:ignore
    ],
)
def test_encode(request_, message):
    refused(message, Sampler(net(), "ddim", 2).encode, IMAGE[None], **request_)


def test_numbers_of_numpy_and_torch_are_numbers():
    kinds = {
        "steps": np.int64(3),
        "guidance": torch.tensor(2.0),
        "interval": (np.float32(0.1), torch.tensor(5.0)),
        "clip": np.array([-1.0, 1.0]),
        "batch_size": torch.tensor(2),
    }
    made = Sampler(net(null=10, classes=10), **kinds)
    assert (made.batch_size, made.interval[1], made.clip) == (2, 5.0, (-1.0, 1.0))
    for seeds in ([7, 9], np.array([7, 9]), torch.tensor([7, 9]), [np.int32(7), torch.tensor(9)]):
        assert made.sample(condition=np.int64(3), seeds=seeds).seeds == [7, 9]
    assert made.sample(np.int64(2), seed=np.uint8(4), condition=3).seeds == [4, 5]


@pytest.mark.parametrize(
    "options", [{}, {"solver": "heun"}, {"solver": "ddim", "eta": np.float32(0.5)}]
)
def test_recipes_are_json(options):
    start = np.float32(0.5)
    network = net(null=10, classes=10)
    how = {
        "steps": np.int32(3),
        "clip": (np.float32(-1), torch.tensor(1.0)),
        "guidance": np.float64(2),
    }
    made = Sampler(network, **options, **how, classifier_scale=np.float32(1)).sample(
        x=IMAGE, start=start, seeds=np.arange(2), condition=torch.tensor([3, 4])
    )
    recipe = json.loads(json.dumps(made.recipe, allow_nan=False))
    assert torch.equal(Sampler.replay(network, recipe, x=IMAGE).samples, made.samples)
    refused("needs=5 are no list", Sampler.replay, network, recipe | {"needs": 5})
    given = Sampler(network, times=np.float32([0.9, 0.5, 0.1])).encode(
        IMAGE[None], refine=np.int64(0)
    )
    json.dumps(given.recipe, allow_nan=False)
    scaled = Decoder(lambda z: z, scale_factor=np.float32(0.5), shift=torch.tensor(1.0))
    json.dumps(Sampler(network, "ddim", decoder=scaled).recipe(), allow_nan=False)


def test_a_shape_may_be_a_list_and_an_image_without_a_batch_axis_is_one():
    network = ScoreNetwork(lambda x, label: x * 0.5, VP(), [np.int64(3), 2, 4])
    assert network.shape == SHAPE and type(network.shape[0]) is int
    made = Sampler(network, steps=3)
    one = made.sample(x=IMAGE, start=0.5)
    assert one.samples.shape == (1, *SHAPE)
    assert torch.equal(one.samples, made.sample(x=IMAGE[None], start=0.5).samples)
    three = made.sample(3, x=IMAGE, start=0.5).samples
    assert three.shape == (3, *SHAPE) and torch.equal(three[0], one.samples[0])
    assert made.encode(IMAGE).samples.shape == (1, *SHAPE)


@pytest.mark.parametrize(
    "kind",
    [lambda m: m.bool(), lambda m: (m * 255).byte(), lambda m: m.byte(), lambda m: m.numpy()],
    ids=["bool", "uint8 of 255", "uint8 of 1", "numpy"],
)
def test_kinds_of_masks(kind):
    mask = torch.zeros(1, 2, 4)
    mask[..., :2] = 1.0
    made = Sampler(net(), "ddpm", 3)
    expected = made.sample(2, mask=mask, known=IMAGE).samples
    assert torch.equal(made.sample(2, mask=kind(mask), known=IMAGE).samples, expected)
    soft = made.sample(mask=torch.full((2, 4), 51, dtype=torch.uint8), known=IMAGE).samples
    assert torch.equal(soft, made.sample(mask=torch.full((2, 4), 0.2), known=IMAGE).samples)


@pytest.mark.parametrize("backend", ["torch", "cpp", "triton"])
def test_known_is_not_seen_where_all_is_free(backend):
    mask = torch.zeros(1, 2, 4)
    mask[..., :2] = 1.0
    known = torch.where(mask == 1.0, NAN, IMAGE)
    made = Sampler(net(), "ddpm", 2, backend=backend)
    got = made.sample(mask=mask, known=known)
    assert got.finite == [True]
    assert torch.equal(got.samples, made.sample(mask=mask, known=IMAGE).samples)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda plan: classifier_free(plan, "2"), "guidance='2': the scale is a finite number"),
        (lambda plan: classifier_free(plan, 2.0, (1.0, "2")), "interval='2': give two"),
        (lambda plan: classifier_guidance(plan, None, 1), "classifier_scale=None"),
        (lambda plan: compose(plan, ()), r"weights=\(\): give finite numbers"),
        (lambda plan: compose(plan, 1.0), "weights=1.0: give finite numbers"),
        (lambda plan: compose(plan, ("1",)), "weight='1': give finite numbers"),
        (lambda plan: Sampler(net(), steps=2).plan("2"), "guidance='2'"),
        (lambda plan: Sampler(net(), steps=2).plan(start="1"), "start='1'"),
        (lambda plan: Sampler(net(), steps=2).plan(kind="images"), "kind='images': choose prior"),
        (lambda plan: profile(Sampler(net(), steps=2), runs=2.5), "runs=2.5: time at least"),
        (lambda plan: linearized(net(CLD(), prediction="velocity"), 1.5), "powers=1.5: give 1"),
        (lambda plan: ScaleEmbedding(4.5), "dim=4.5: an embedding"),
        (lambda plan: ScaleEmbedding(factor=NAN), "factor=nan"),
        (lambda plan: Graph(budget="8GB"), "budget='8GB': bytes"),
        (lambda plan: Graph(whole_run=1), "whole_run=1: give True or False"),
    ],
)
def test_what_is_called_by_itself(call, message):
    refused(message, call, Sampler(net(), steps=2).plan())
