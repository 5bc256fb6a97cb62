"""GENIE's networks and heads from folders, against its published sampler; what its conventions trip over."""

import json
import re

import numpy as np
import pytest
import torch
from ncsnpp_cases import REFERENCE, save, weights

from diffusion_engine import Sampler
from diffusion_engine.adapters import genie as reader
from diffusion_engine.adapters.checkpoint import on_meta, open_checkpoint
from diffusion_engine.adapters.genie import from_genie, from_genie_head, genie_network
from diffusion_engine.adapters.genie.head import Head, HeadSizes
from diffusion_engine.adapters.genie.reader import _read
from diffusion_engine.adapters.ncsnpp.blocks import Style
from diffusion_engine.models import network_of

NCSNPP = {
    "name": "ncsnpp", "nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [2],
    "image_size": 4, "num_in_channels": 3, "num_out_channels": 3, "pred": "eps", "M": 999.0,
    "act_name": "swish", "skip_rescale": True, "embedding_type": "positional", "ema_rate": 0.9999,
}  # fmt: skip
DDPM = {
    "name": "ddpm", "nf": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [4],
    "image_size": 4, "num_in_channels": 3, "num_out_channels": 3, "pred": "eps", "M": 1.0,
}  # fmt: skip
ADM = {
    "name": "openai", "nf": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [2],
    "image_size": 4, "num_in_channels": 3, "num_out_channels": 3, "pred": "v", "M": 1.0,
    "num_heads": None, "num_head_channels": 16, "num_head_upsample": -1, "num_classes": None,
    "use_scale_shift_norm": True, "resblock_updown": True, "use_new_attention_order": True,
    "fourier_scale": 16,
}  # fmt: skip
UPSAMPLER = ADM | {"name": "openai_upsampler", "num_in_channels": 6, "cond_res": 2}
CASES = [(NCSNPP, False), (DDPM, True), (ADM, False)]
LAST = {"ncsnpp": ("all_modules.15", "all_modules.1"), "ddpm": ("up.0.attn.1", "temb")}
LAST["openai"] = ("output_blocks.3", "embedding")


def config_of(model):
    return {"format": "genie", "sde": {"beta_min": 0.1, "beta_d": 19.9}, "diffusion_model": model}


def head_of(model, normalise=False):
    images = 3 if "cond_res" in model else 2
    return {
        "num_in_channels": model["nf"] + 3 * images, "num_out_channels": 9, "nf": 16, "num_res_blocks": 1,
        "normalize_xemb": normalise, "skip_rescale": True, "is_upsampler": images == 3, "image_size": 4,
        "fir": False,
    }  # fmt: skip


def saved(folder, model, normalise=False):
    """The network, and its head in the folder within."""
    save(folder, config_of(model), weights(_read(config_of(model), "it")[0].module))
    features, head = model["nf"], head_of(model, normalise)
    sizes = HeadSizes(3, features, 16, 1, normalise, False, 3 if "cond_res" in model else 2)
    made = on_meta(lambda: Head(sizes, Style(4 * features)))
    save(folder / "head", {"format": "genie_head", "genie_model": head}, weights(made))
    return folder


def loop(base, head, model, x, n, afs, denoise, quadratic):
    """TTM2 in the repository's words: gamma = sigma / alpha, x_bar = x sqrt(1 + gamma^2)."""
    ends = (1.0, 1e-3**0.5) if quadratic else (1.0, 1e-3)
    t = np.linspace(*ends, n + 1) ** (2 if quadratic else 1)
    alpha = np.exp(-0.5 * (0.1 * t + 0.5 * 19.9 * t**2))
    gamma = np.sqrt(1 - alpha**2) / alpha
    kept, names, m = {}, LAST[model["name"]], model["M"]
    for name in names:
        base.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: kept.update({name: out})
        )

    def called(k):
        x = torch.from_numpy(x_bar / np.sqrt(1 + gamma[k] ** 2))
        with torch.no_grad():
            eps = base(x, torch.full((len(x),), m * t[k], dtype=torch.float64))
            if model["pred"] == "v":
                eps = alpha[k] * eps + np.sqrt(1 - alpha[k] ** 2) * x
            k1, k2, k3 = head(x, eps, *(kept[name] for name in names)).chunk(3, dim=1)
        g = gamma[k]
        return eps.numpy(), (-k1 / g + k2 * g / (1 + g**2) + k3 / (g * (1 + g**2))).numpy()

    x_bar = x * np.sqrt(1 + gamma[0] ** 2)
    for k in range(n):
        eps, slope = (x, 0.0) if k == 0 and afs else called(k)
        h = gamma[k + 1] - gamma[k]
        x_bar = x_bar + h * eps + 0.5 * h**2 * slope
    return x_bar - gamma[-1] * called(n)[0] if denoise else x_bar / np.sqrt(1 + gamma[-1] ** 2)


@pytest.mark.parametrize(
    "model, normalise, afs, denoise, quadratic",
    [(NCSNPP, False, False, False, False), *((*case, True, True, True) for case in CASES)],
    ids=["plain", "cifar", "church", "cats"],
)
def test_the_published_sampler(model, normalise, afs, denoise, quadratic, tmp_path):
    folder, n = saved(tmp_path / "net", model, normalise), 3
    network = from_genie(folder, label_dtype=torch.float64)
    grid = "quadratic" if quadratic else "uniform"
    sampler = Sampler(
        network, "genie", n, grid=grid, end="t_min", afs=afs, denoise=denoise, **REFERENCE
    )
    start = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    ours = sampler.sample(x=torch.from_numpy(start), noised=True)
    (folder / "head").rename(folder / "trained")
    base = from_genie(folder).module.double()
    assert base.state_dict().keys() == network.module.unet.state_dict().keys()
    head = from_genie_head(folder / "trained").double()
    want = loop(base, head, model, start, n, afs, denoise, quadratic)
    assert ours.samples.numpy() == pytest.approx(want, rel=1e-8, abs=1e-8)
    assert ours.nfe == n - afs + denoise


def test_modules_of_the_repository():
    """model(x, M t, y) -> (out, xemb, temb), genie_model(x, t, eps, xemb, temb) -> d eps / dg."""
    seen = []

    def model(x, label, y):
        seen.append((label.tolist(), y.tolist()))
        return 0.5 * x, "xemb", "temb"

    def genie_model(x, t, eps, features, embedding):
        seen.append((t.tolist(), float((eps / x).mean()), features, embedding))
        return 0.0 * x

    shape = (1, 2, 2)
    network = genie_network(model, shape, genie_model, M=999.0, classes=3)
    heads = Sampler(network, "genie", 2, end="t_min").sample(1, condition=[2])
    assert seen[0] == ([999.0], [2]) and seen[1] == ([1.0], 0.5, "xemb", "temb")
    plain = genie_network(model, shape, M=999.0, classes=3)
    assert torch.equal(
        heads.samples,
        Sampler(plain, "ddim", 2, grid="lambda", end="t_min").sample(1, condition=[2]).samples,
    )
    # A prediction v at t = 1, alpha = 0.0066: eps = alpha v + sigma x.
    seen.clear()
    Sampler(
        genie_network(model, shape, genie_model, pred="v", M=1.0, classes=3), "genie", 2
    ).sample(1, condition=[0])
    assert seen[0] == ([1.0], [0]) and seen[1][1] == pytest.approx(1.0 + 0.5 * 0.00657, abs=1e-4)


def test_without_a_head(tmp_path):
    folder = saved(tmp_path / "net", NCSNPP)
    assert open_checkpoint(folder).parameterisation.derivative == "heads"
    (folder / "head" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json is not there"):
        from_genie(folder)
    (folder / "head" / "model.safetensors").unlink()
    (folder / "head").rmdir()
    assert open_checkpoint(folder).parameterisation.derivative is None


def test_a_head_of_another_network(tmp_path):
    folder = saved(tmp_path / "a", NCSNPP)
    other = saved(tmp_path / "b", DDPM)
    message = (
        "head 'head' reads 32 features of images of 3 channels, and the network 'a' makes 8 of 3"
    )
    with pytest.raises(ValueError, match=message):
        from_genie(folder, head=other / "head")
    with pytest.raises(ValueError, match="of the format 'genie', not 'genie_head'"):
        from_genie(folder, head=other)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"name": "dit"}, "name='dit': choose ncsnpp, ddpm, openai, openai_upsampler"),
        ({"pred": "x0"}, "pred='x0': choose eps, v"),
        ({"M": None}, "M=None: give a number"),
        ({"num_in_channels": 6}, "num_in_channels=6: give a whole number from 3 to 3"),
    ],
)
def test_refusals(changed, message, tmp_path):
    folder = saved(tmp_path / "net", NCSNPP)
    (folder / "config.json").write_text(json.dumps(config_of(NCSNPP | changed)))
    with pytest.raises(ValueError, match=re.escape(message)):
        from_genie(folder)


def test_classes_and_where_images_attend(tmp_path):
    """attn_resolutions of "openai" are factors: 2 of images of 4 is their half."""
    folder = saved(tmp_path / "net", ADM | {"num_classes": 3, "pred": "eps"})
    network = from_genie(folder)
    assert network.classes == 3
    assert Sampler(network, "genie", 3).sample(2, condition=[0, 2]).finite == [True, True]
    stages = network.module.unet.input_blocks
    assert [len(stage) for stage in stages] == [1, 1, 1, 2]


def test_an_upsampler_is_shown_a_small_image_and_its_level(tmp_path):
    """As a condition."""
    network = from_genie(saved(tmp_path / "net", UPSAMPLER))
    x, condition = (
        torch.randn(2, 3, 4, 4),
        {"low": torch.randn(2, 3, 2, 2), "level": torch.tensor([0.1, 0.1])},
    )
    run = Sampler(network, "genie", 2)
    made = run.sample(x=x, noised=True, condition=condition)
    other = run.sample(x=x, noised=True, condition=condition | {"level": torch.tensor([0.1, 0.3])})
    assert made.finite == [True, True]
    assert torch.equal(made.samples[0], other.samples[0])
    assert not torch.equal(made.samples[1], other.samples[1])
    seen = []

    def model(x, label, context):
        seen.append(context)
        return 0.0 * x, "xemb", "temb"

    network = genie_network(model, (3, 4, 4), lambda x, *rest, context: 0.0 * x, M=1.0)
    Sampler(network, "genie", 2).sample(2, condition=condition)
    assert torch.equal(seen[0][0], condition["low"]) and torch.equal(seen[0][1], condition["level"])
    with pytest.raises(ValueError, match="reads 32 features of images"):
        from_genie(tmp_path / "net", head=saved(tmp_path / "other", DDPM) / "head")


def test_averages():
    assert reader.parameter_names(config_of(DDPM))[:2] == [
        "temb.dense.0.weight",
        "temb.dense.0.bias",
    ]
    assert reader.parameter_names(config_of(NCSNPP))[0] == "all_modules.0.weight"


def test_a_head_alone_is_no_model(tmp_path):
    folder = saved(tmp_path / "net", NCSNPP)
    assert network_of(str(folder)).parameterisation.derivative == "heads"
    with pytest.raises(ValueError, match="holds a Head, which is no network by itself"):
        network_of(str(folder / "head"))
