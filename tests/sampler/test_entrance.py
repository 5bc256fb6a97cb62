"""Numbers, tensors and names at every public entrance: the meaning users expect, or a sentence."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from diffusion_engine import (
    Decoder,
    Sampler,
    ScoreNetwork,
    classifier_free,
    classifier_guidance,
    compose,
    decoder_from_diffusers,
    from_diffusers,
    linearized,
    profile,
)
from diffusion_engine.executors import Graph
from diffusion_engine.networks.condition import ScaleEmbedding
from diffusion_engine.processes import (
    CLD,
    EDM,
    VDM,
    VE,
    VP,
    Discrete,
    FlowMatching,
    Point,
    SubVP,
    grids,
)
from diffusion_engine.solvers import solver

SHAPE = (3, 2, 4)
NAN, INF = math.nan, math.inf
IMAGE = torch.linspace(-1.0, 1.0, 24).reshape(SHAPE)


def net(process=None, **options):
    return ScoreNetwork(lambda x, label, *y: x * 0.5, process or VP(), SHAPE, **options)


def labelled():
    return net(null=10, classes=10)


def refused(message, call, *given, **named):
    with pytest.raises(ValueError, match=message):
        call(*given, **named)


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
        ({"dtype": "bfloat16"}, "dtype='bfloat16': the network's input is torch.float32"),
        ({"dtype": torch.int8}, "dtype=torch.int8"),
        ({"device": "gpu"}, "device='gpu' cannot be used here"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used here"),
        ({"executor": 3}, "executor=3; choose eager or graph"),
        ({"step": 20}, "has no option step; it has .*; did you mean steps"),
        ({"solver": solver("ddim"), "guidence": 2.0}, "did you mean guidance"),
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
        ({"conditon": 3}, "encode takes no conditon.*did you mean condition"),
    ],
)
def test_encode(request_, message):
    refused(message, Sampler(net(), "ddim", 2).encode, IMAGE[None], **request_)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"module": "unet"}, "module='unet': give a torch.nn.Module"),
        ({"shape": 3}, "shape=3: one sample's shape"),
        ({"shape": (3, 2.0)}, "shape="),
        ({"shape": (True, 2)}, "shape="),
        ({"prediction": 3}, "prediction=3: choose eps"),
        ({"prediction": "epss"}, "did you mean eps"),
        ({"label": 3}, "label=3: choose t"),
        ({"label_dtype": torch.int32}, "label_dtype=torch.int32: choose torch.float32"),
        ({"scale": 2.0}, "scale=2.0: choose one"),
        ({"null": 12, "classes": 10}, "null=12 of 10 classes"),
        ({"null": -1, "classes": 10}, "null=-1"),
        ({"null": 1.5, "classes": 10}, "null=1.5"),
        ({"classes": 2.5}, "classes=2.5"),
        ({"classes": 0}, "classes=0"),
        ({"clip": (1, -1)}, "clip=.*low < high"),
        ({"clip": "network"}, "clip='network'"),
        ({"grid": "karas"}, "unknown grid 'karas'"),
        ({"grid": 3}, "grid=3"),
        ({"memory_format": "channels_last"}, "memory_format='channels_last': choose"),
        ({"scale_input": 3}, "scale_input=3: give a function"),
        ({"gradient": -1}, "gradient=-1"),
        ({"latent": 2.5}, "latent=2.5"),
        ({"inference": "yes"}, "inference='yes'"),
    ],
)
def test_networks(options, message):
    given = {"module": lambda x, t: x, "process": VP(), "shape": SHAPE} | options
    refused(message, ScoreNetwork, **given)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"label": lambda at: "t"}, "label='t': its function of a Point returns a number"),
        ({"label": lambda at: NAN}, "label=nan"),
        ({"scale": lambda at: None}, "scale=None: its function of a Point"),
        ({"prediction": lambda at: 1.0}, r"returned 1.0 of Point.*; give \(p, q\)"),
    ],
)
def test_what_rules_of_a_network_return(options, message):
    refused(message, Sampler, net(**options), steps=2)


def test_names_of_network_options():
    options = {"predction": "x0"}
    refused(
        "no predction; did you mean prediction", ScoreNetwork.from_denoiser, abs, SHAPE, **options
    )
    refused("no predction", from_diffusers, nn.Conv2d(3, 3, 1), {}, **options)
    refused(
        "no scale; it takes .* scale_factor", decoder_from_diffusers, nn.Conv2d(3, 3, 1), scale=2.0
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"module": 3}, "module=3"),
        ({"scale_factor": "0.18"}, "scale_factor='0.18': latents are divided"),
        ({"shift": NAN}, "shift=nan"),
        ({"tile": 2.5}, "tile=2.5"),
        ({"tile": True}, "tile=True"),
        ({"overlap": "a"}, "overlap='a'"),
        ({"overlap": NAN}, "overlap=nan"),
        ({"channels": 2.5}, "channels=2.5"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
    ],
)
def test_decoders(options, message):
    refused(message, Decoder, **({"module": lambda z: z} | options))


@pytest.mark.parametrize("latents", [None, torch.zeros(1, 4, 2, 2).long(), torch.zeros(1, 3, 2, 2)])
def test_latents(latents):
    refused("latents=.*: give a floating-point tensor", Decoder(lambda z: z, channels=4), latents)


@pytest.mark.parametrize("kind", [VP, SubVP, VE, EDM, FlowMatching, CLD, VDM, Discrete])
def test_numbers_of_a_process_are_named(kind):
    """`VP(0.1, 20.0)` would be t_min and t_max, not betas."""
    with pytest.raises(TypeError, match="positional"):
        kind(0.1, 20.0)


@pytest.mark.parametrize(
    "made, message",
    [
        (lambda: VP(beta_min="0.1"), "beta_min='0.1'"),
        (lambda: VP(beta_max=NAN), "beta_max=nan"),
        (lambda: VP(beta_min=-1.0), "rates of noise are 0 or above"),
        (lambda: SubVP(t_min=1.0, t_max=0.5), "SubVP has t_min=1 and t_max=0.5"),
        (lambda: VE(sigma_min=50.0, sigma_max=0.1), "0 < sigma_min < sigma_max"),
        (lambda: VP(t_min=0.1, t_max=20.0), "t_max=20, and its times end at 1, where the rate"),
        (lambda: VE(t_min=0.01, t_max=50.0), "t_max=50, and its times end at 1, where sigma is"),
        (lambda: VDM(t_max=3.0), "VDM has t_max=3, and its times end at 1, where gamma ends"),
        (
            lambda: Discrete(alpha_bar=(0.9, 0.5), t_max=5.0),
            "t_max=5.0: a table of 2 ends at t=1; leave it",
        ),
        (lambda: solver("dpmpp_sde", eta=-0.5), "eta=-0.5: an amount of noise is 0 or above"),
        (lambda: solver("dpmpp_3m_sde", eta=-0.5), "eta=-0.5: an amount of noise"),
        (lambda: VE(t_min=-0.5), "VE has t_min=-0.5, and its times begin at 0"),
        (lambda: EDM(t_min=-0.5), "EDM has t_min=-0.5, and its times begin at 0"),
        (lambda: grids.points(EDM(t_min=0.0), 4), "EDM has no noise at its last time t=0"),
        (lambda: EDM(t_min=INF), "t_min=inf"),
        (lambda: EDM(t_min=90.0), "EDM has t_min=90"),
        (lambda: FlowMatching(t_max=1.5), "t_max=1.5: flow matching ends at t=1"),
        (lambda: CLD(mass="1"), "mass='1'"),
        (lambda: VDM(gamma=3.0), "gamma=3.0: give a function"),
        (lambda: Discrete.linear(2.5), "n=2.5: a chain"),
        (lambda: Discrete.cosine("9"), "n='9': a chain"),
        (lambda: Discrete(alpha_bar="abc"), "alpha_bar='abc'"),
    ],
)
def test_processes(made, message):
    refused(message, made)


def test_weights_of_an_update():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x, label):
            return self.conv(x)

    made = Sampler(ScoreNetwork(Net(), VP(), SHAPE), steps=2)
    before = made.sample().samples
    weights = {name: t * NAN for name, t in made.network.module.state_dict().items()}
    refused("weight 'conv.weight' of the network holds NaN", made.update_weights, weights)
    refused("give a state_dict", made.update_weights, [1.0])
    assert torch.equal(made.sample().samples, before)


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
