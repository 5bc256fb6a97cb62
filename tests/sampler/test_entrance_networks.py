"""Numbers, tensors and names that networks, decoders, processes and updates get: taken, or a sentence."""

import pytest
import torch
from entrance_cases import INF, NAN, SHAPE, net, refused
from torch import nn

from diffusion_engine import (
    Decoder,
    Sampler,
    ScoreNetwork,
    decoder_from_diffusers,
    from_diffusers,
)
from diffusion_engine.processes import (
    CLD,
    EDM,
    VDM,
    VE,
    VP,
    Discrete,
    FlowMatching,
    SubVP,
    grids,
)
from diffusion_engine.solvers import solver


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
