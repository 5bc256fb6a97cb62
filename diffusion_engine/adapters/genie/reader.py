"""GENIE's checkpoints: the network, and the head that was distilled for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ...genie import attach
from ...networks.network import ScoreNetwork
from ...processes import VP
from ..checkpoint import Checkpoint, Fields, on_meta, read
from ..ncsnpp.blocks import Style
from ..ncsnpp.network import Architecture, NCSNpp
from ..ncsnpp.reader import (
    COUNT,
    SIDE,
    WIDTH,
    built,
    config_of,
    filled,
    nonlinearity,
    shared,
    trained,
)
from .ddpm import Sizes, UNet
from .head import Head, HeadSizes
from .network import Times

HEAD = "head"  # a folder within that of a network


def from_genie(
    path: str | os.PathLike[str], *, head: str | os.PathLike[str] | None = None, **options: Any
) -> ScoreNetwork:
    """The network of a checkpoint of GENIE with its head, for the solver `genie`, or without, for all others.

    path     a folder of config.json and model.safetensors, as `diffusion-engine convert` makes it. Its config
             has the fields `diffusion_model` and `sde` of the repository's own
    head     such a folder of the head's checkpoint, of the format genie_head, whose config has the field
             `genie_model`; None takes the folder `head` within the other, where there is one
    options  of ScoreNetwork

    Raises ValueError where a config has what is not read here, such as an upsampler, the weights are of
    another network, or the head was made for another.
    """
    checkpoint = read(path, "genie")
    where = config_of(checkpoint)
    about, law = _read(checkpoint.config, where)
    module = filled(_network(about, where), checkpoint)
    network = ScoreNetwork(module, **law, **({"name": checkpoint.name} | options))
    inside = Path(path) / HEAD
    if head is None and inside.is_dir():
        head = inside
    return network if head is None else _attached(network, about, read(head, "genie_head"))


def from_genie_head(path: str | os.PathLike[str]) -> Head:
    """The head of a checkpoint of the format genie_head."""
    return _head(read(path, "genie_head"))


def parameter_names(config: Mapping[str, Any]) -> list[str]:
    """The names of a network's averages; a head's checkpoint has none."""
    where = "the config"
    return trained(_network(_read(config, where)[0], where))


def _network(about: Architecture | Sizes, where: str) -> nn.Module:
    if isinstance(about, Architecture):
        return built(about, where)
    return on_meta(lambda: UNet(about))


def _attached(
    network: ScoreNetwork, about: Architecture | Sizes, checkpoint: Checkpoint
) -> ScoreNetwork:
    head = _head(checkpoint)
    if isinstance(about, Architecture):
        assert isinstance(network.module, NCSNpp)
        # The last layers are a norm and a convolution.
        feature = f"all_modules.{len(network.module.all_modules) - 3}"
        embedding = "all_modules.2" if about.embedding_type == "fourier" else "all_modules.1"
        channels, width = about.num_channels, about.nf
    else:
        kind = "attn" if about.attends(0) else "block"
        feature, embedding = f"up.0.{kind}.{about.blocks}", "temb"
        channels, width = about.c_out, about.ch
    sizes = head.sizes
    if (sizes.channels, sizes.features) != (channels, width):
        raise ValueError(
            f"the head {checkpoint.name!r} reads {sizes.features} features of images of {sizes.channels} "
            f"channels, and the network {network.name!r} makes {width} of {channels}: give the head that was "
            "trained on it"
        )
    return attach(network, head, feature=feature, embedding=embedding)


def _head(checkpoint: Checkpoint) -> Head:
    where = config_of(checkpoint)
    outer = Fields(checkpoint.config, where)
    fields = outer.inner("genie_model")
    fields.choice("is_upsampler", (False,), False)
    channels = fields.whole("num_out_channels", 3, WIDTH) // 3
    features = fields.whole("num_in_channels", 7, WIDTH) - 2 * channels
    fir = fields.flag("fir", False)
    taps = fields.wholes("fir_kernel", 0, 1000, (1, 3, 3, 1))
    style = Style(
        4 * features, taps=taps if fir else None, rescale=fields.flag("skip_rescale", True)
    )
    sizes = HeadSizes(
        channels,
        features,
        width=fields.whole("nf", 4, WIDTH),
        blocks=fields.whole("num_res_blocks", 0, COUNT, 1),
        normalise=fields.flag("normalize_xemb", False),
        activate=fields.flag("apply_act_before_res", False),
    )
    fields.ignore("init_scale", "dropout", "image_size", "ckpt_path")
    outer.ignore(*SECTIONS)
    for part in (fields, outer):
        part.done()
    head = on_meta(lambda: Head(sizes, style))
    filled(head, checkpoint)
    return head


# Of a config file, what says nothing of the network read.
SECTIONS = ("setup", "data", "sde", "diffusion_model", "sampler", "optim", "train", "test")


def _read(config: Mapping[str, Any], where: str) -> tuple[Architecture | Sizes, dict[str, Any]]:
    """The network, and the arguments of ScoreNetwork beside the module and the name."""
    outer = Fields(config, where)
    fields = outer.inner("diffusion_model")
    sde = outer.inner("sde")
    b0, slope = sde.number("beta_min", 0.0, 1e4, 0.1), sde.number("beta_d", -1e4, 1e4, 19.9)
    name = fields.choice("name", ("ncsnpp", "ddpm"))
    side = fields.whole("image_size", 1, SIDE)
    channels = fields.whole("num_in_channels", 1, WIDTH)
    about = (_ncsnpp if name == "ncsnpp" else _ddpm)(fields, side, channels)
    law = {
        "process": VP(beta_min=b0, beta_max=b0 + slope),
        "shape": (channels, side, side),
        "prediction": fields.choice("pred", ("eps", "v"), "eps"),
        "label": Times(fields.number("M", 1e-9, 1e9)),
    }
    fields.whole("num_out_channels", channels, channels, channels)
    fields.ignore(
        "ema_rate", "normalization", "attention_type", "init_scale", "fourier_scale", "conv_size"
    )
    fields.ignore("dropout", "ckpt_path")
    outer.ignore("genie_model", *SECTIONS)
    for part in (fields, sde, outer):
        part.done()
    return about, law


def _ncsnpp(fields: Fields, side: int, channels: int) -> Architecture:
    fields.choice("resblock_type", ("biggan",), "biggan")
    return Architecture(
        image_size=side,
        num_channels=channels,
        in_channels=channels,
        nonlinearity=nonlinearity(fields, "act_name"),
        conditional=fields.flag("conditional", True),
        fir=fields.flag("fir", False),
        fir_kernel=fields.wholes("fir_kernel", 0, 1000, (1, 3, 3, 1)),
        **_sizes(fields),
        **shared(fields),
    )


def _sizes(fields: Fields) -> dict[str, Any]:
    return {
        "nf": fields.whole("nf", 4, WIDTH),
        "ch_mult": fields.wholes("ch_mult", 1, WIDTH),
        "num_res_blocks": fields.whole("num_res_blocks", 1, COUNT),
        "attn_resolutions": fields.wholes("attn_resolutions", 1, SIDE),
    }


def _ddpm(fields: Fields, side: int, channels: int) -> Sizes:
    own = _sizes(fields)
    made = Sizes(
        side, channels, channels, own["nf"], own["ch_mult"], own["num_res_blocks"], own["attn_resolutions"],
        fields.flag("resamp_with_conv", True),
    )  # fmt: skip
    made.check(fields.where)
    return made
