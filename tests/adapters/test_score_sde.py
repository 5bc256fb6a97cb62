"""score_sde: its networks from folders, against its published sampler; what its conventions trip over."""

import json
import re

import numpy as np
import pytest
import torch
from ncsnpp_cases import REFERENCE, called, levels, normals, save_network
from oracles import score_sde as published

from diffusion_engine import Sampler
from diffusion_engine.adapters import score_sde as reader
from diffusion_engine.adapters.checkpoint import open_checkpoint
from diffusion_engine.adapters.score_sde import from_score_sde, score_sde_network
from diffusion_engine.drivers.predictor_corrector import CORRECTS, PredictorCorrector
from diffusion_engine.networks.wrapper import unwrapped
from diffusion_engine.ops import philox
from diffusion_engine.processes import Discrete

SEEDS, SHAPE = (3, 4), (3, 4, 4)
N = 6
NCSNPP = {
    "name": "ncsnpp", "nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [2],
    "fir": False, "fir_kernel": [1, 3, 3, 1], "num_scales": N, "fourier_scale": 16, "ema_rate": 0.999,
}  # fmt: skip
NCSNPP = NCSNPP | {"embedding_type": "positional", "scale_by_sigma": False}
FIR = NCSNPP | {"fir": True}
VE = FIR | {"scale_by_sigma": True}
SKIPS = {"progressive": "output_skip", "progressive_input": "input_skip"}
DDPM = {
    "name": "ddpm", "nf": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [2],
    "num_scales": N, "scale_by_sigma": False, "nonlinearity": "swish",
    "beta_max": 4.0,  # of six large steps
}  # fmt: skip
CONFIGS = {  # sde, continuous, model
    "ddpm++": ("vpsde", True, NCSNPP),
    "ncsn++ of sub-VP": ("subvpsde", True, FIR | {"progressive_input": "residual"}),
    "ncsn++": ("vesde", True, VE | SKIPS | {"embedding_type": "fourier"}),
    "ncsn++ of a table": ("vesde", False, VE),
    "ddpm": ("vpsde", False, DDPM),
}


def config_of(name, **model):
    sde, continuous, own = CONFIGS[name]
    return {
        "format": "score_sde",
        "model": own | model,
        "data": {
            "image_size": 4, "num_channels": 3, "centered": sde != "vesde", "dataset": "CIFAR10",
        },
        "training": {"sde": sde, "continuous": continuous, "batch_size": 128},
        "sampling": {"snr": 0.16},
    }  # fmt: skip


def saved(folder, name, **model):
    config = config_of(name, **model)
    architecture, _ = reader._read(config, "it")
    return save_network(
        folder, config, architecture, **levels(0.01, 50.0, config["model"]["num_scales"])
    )


def opened(folder, name, **options):
    """The network, told float64 labels where they are not whole, and itself as a function of numpy."""
    sde, continuous, _ = CONFIGS[name]
    table = sde == "vesde" and not continuous
    network = from_score_sde(saved(folder, name), **options)
    if not table:
        network = from_score_sde(folder, label_dtype=torch.float64, **options)
    return network, called(unwrapped(network.module))


@pytest.mark.parametrize(
    "name, predictor",
    [
        ("ddpm++", "euler_maruyama"),
        ("ncsn++ of sub-VP", "euler_maruyama"), ("ncsn++", "reverse_diffusion"),
        ("ncsn++ of a table", "reverse_diffusion"), ("ddpm", "ancestral"),
    ],
)  # fmt: skip
def test_the_published_sampler(name, predictor, tmp_path):
    """Corrector first, then the predictor, and the mean at the end; steps of 1 / N; VE in [0, 1]."""
    network, model = opened(tmp_path / "net", name)
    sde, continuous, _ = CONFIGS[name]
    law = {"vpsde": published.VPSDE, "subvpsde": published.SubVPSDE, "vesde": published.VESDE}[sde]
    rates = {"b1": DDPM["beta_max"]} if name == "ddpm" else {}
    corrected = sde == "vesde"
    how = {"driver": PredictorCorrector(rule="batch")} if corrected else {}
    if not isinstance(network.process, Discrete):  # of which every timestep is a step
        how |= {"grid": "uniform", "step": "1/N"}
    sampler = Sampler(network, predictor, N, **REFERENCE, **how)
    size = 2.0 if corrected else 1.0
    start = np.random.default_rng(0).normal(size=(2, *SHAPE)) * (100.0 if corrected else 1.0)
    ours = sampler.sample(x=torch.from_numpy(start), noised=True, seeds=SEEDS)
    given = philox.STATE

    theirs = published.pc_sampler(
        law(N, continuous, **rates), model, start / size + (0.5 if corrected else 0.0),
        lambda i: normals(given | i + 1, SHAPE, SEEDS), predictor,
        (lambda i: normals(CORRECTS | given | i + 1, SHAPE, SEEDS)) if corrected else None,
        eps=0.0 if name == "ddpm" else None,
    )  # fmt: skip
    want = 2.0 * theirs - 1.0 if corrected else theirs
    assert ours.samples.numpy() == pytest.approx(want, rel=1e-8, abs=1e-8 * np.abs(want).max())


def test_labels(tmp_path):
    """999 t of times, timesteps of a table; sigma of the range [0, 1]; 0 is the largest of VE's table."""
    labels = {}
    for name in CONFIGS:
        network = from_score_sde(saved(tmp_path / name, name))
        ends = map(network.process.at, (network.process.t_max, network.process.t_min))
        labels[name] = [network.parameterisation.label_of(at) for at in ends]
    assert labels["ddpm++"] == labels["ncsn++ of sub-VP"] == pytest.approx([999.0, 0.999])
    assert labels["ddpm"] == [N - 1, 0]
    assert labels["ncsn++"] == pytest.approx([50.0, 0.01], rel=1e-4)
    assert labels["ncsn++ of a table"] == [0, N - 1]


def test_a_module_on_0_to_1():
    """The exact score of data at 1/4 in [0, 1], which are at -1/2 here."""
    seen = []

    def module(y, sigma):
        seen.append(y)
        return (0.25 - y) / sigma.view(-1, 1, 1, 1) ** 2

    network = score_sde_network(module, (1, 2, 2), "vesde", centered=False, sigma_max=5.0)
    sampler = Sampler(network, "euler", 6)
    made = sampler.sample(2)
    assert made.samples.numpy() == pytest.approx(-0.5, abs=1e-5)
    # 10 is the level in [-1, 1]: half of it around 1/2
    first = 5.0 * normals(0, (1, 2, 2), [0, 1]) + 0.5
    assert seen[0].numpy() == pytest.approx(first, rel=1e-5, abs=1e-5)
    assert (network.process.sigma_min, network.process.sigma_max) == (0.02, 10.0)


def test_averages_have_no_frequencies():
    """`ema` lists parameters in their order, of which those without gradients and buffers have none."""
    names = reader.parameter_names(config_of("ncsn++"))
    assert names[:3] == ["all_modules.1.weight", "all_modules.1.bias", "all_modules.2.weight"]
    block = [n.removeprefix("all_modules.4.") for n in names if n.startswith("all_modules.4.")]
    layers = ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1")
    assert block == [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert "all_modules.0.W" not in names and "sigmas" not in names
    assert reader.parameter_names(config_of("ddpm++"))[0] == "all_modules.0.weight"


def test_a_folder_opens_by_its_format(tmp_path):
    network = open_checkpoint(saved(tmp_path / "cifar", "ncsn++"), clip=(-1.0, 1.0))
    assert (network.name, network.shape, network.parameterisation.clip) == ("cifar", SHAPE, (-1, 1))
    assert not network.module.training
    made = Sampler(network, "dpmpp_2m", 5).sample(2)
    assert made.finite == [True, True]


@pytest.mark.parametrize(
    "part, name, value, message",
    [
        ("model", "progressive", "residual", "progressive='residual': choose none, output_skip"),
        ("model", "resblock_type", "ddpm", "resblock_type='ddpm': choose biggan"),
        (
            "model",
            "sigma_max",
            90.0,
            "6 levels from 90 to 0.01, and its checkpoint has 6 others",
        ),
        ("model", "nf", 10, "10 channels make no groups of 4"),
        ("model", "ch_mult", [1, 1, 1, 1], "images of 4 are halved 3 times"),
        ("model", "num_res_block", 2, "unknown 'num_res_block'; did you mean num_res_blocks"),
        ("model", "fir_kernel", [1, 2, 1], "give an even number of them"),
        ("model", "fir_kernel", [0, 0], "not all 0"),
        ("model", "ch_mult", [1, 3], "tensors of another shape"),
        ("data", "image_size", 1 << 30, "image_size=1073741824: give a whole number"),
        ("training", "sde", "cld", "sde='cld': choose vpsde, subvpsde, vesde"),
    ],
)
def test_refusals(part, name, value, message, tmp_path):
    path = saved(tmp_path / "net", "ncsn++ of a table") / "config.json"
    config = json.loads(path.read_text())
    config[part][name] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=re.escape(message)):
        from_score_sde(path.parent)


def test_modules_that_fit_no_sde():
    with pytest.raises(ValueError, match=r"sde='edm': choose vpsde, subvpsde, vesde"):
        score_sde_network(lambda x, t: x, (1, 2, 2), "edm")
    with pytest.raises(ValueError, match=r"centered=False of 'vpsde': images in \[0, 1\] shrink"):
        score_sde_network(lambda x, t: x, (1, 2, 2), centered=False)
