"""GENIE's checkpoints: the network, and the head that was distilled for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ...genie import attach
from ...networks.network import ScoreNetwork
from ...processes import VP
from ..checkpoint import Checkpoint, Fields, on_meta, read
from ..checkpoint.folder import check_link
from ..ncsnpp.blocks import Style
from ..ncsnpp.network import Architecture
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
from .openai import OpenAIUNet, read_form
from .upsampler import Upsampler, WithHead

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

    An upsampler's condition is {"low": small images, "level": times a}, of which it was shown
    alpha(a) x0 + sigma(a) n; published with a = 0.1.
    Raises ValueError where a config has what no network of that repository runs, the weights are of another
    network, or the head was made for another.
    """
    checkpoint = read(path, "genie")
    where = config_of(checkpoint)
    base, law = _read(checkpoint.config, where)
    network = ScoreNetwork(
        filled(base.module, checkpoint), **law, **({"name": checkpoint.name} | options)
    )
    inside = Path(path) / HEAD
    if head is None and inside.is_dir():
        check_link(inside)
        head = inside
    return network if head is None else _attached(network, base, read(head, "genie_head"))


def from_genie_head(path: str | os.PathLike[str]) -> Head:
    """The head of a checkpoint of the format genie_head.

    path  a folder of config.json and model.safetensors

    Raises ValueError where they are not those of a head.
    """
    return _head(read(path, "genie_head"))


def parameter_names(config: Mapping[str, Any]) -> list[str]:
    """The names of a network's averages; a head's checkpoint has none."""
    return trained(_read(config, "the config")[0].module)


@dataclass(frozen=True)
class Base:
    """A network without numbers, and what a head reads of it.

    features   channels of its last feature map, before the last norm
    feature, embedding  names of the modules that return that and the time embedding; of an upsampler none
    """

    module: nn.Module
    features: int
    feature: str = ""
    embedding: str = ""


def _attached(network: ScoreNetwork, base: Base, checkpoint: Checkpoint) -> ScoreNetwork:
    head = _head(checkpoint)
    sizes, channels = head.sizes, network.shape[0]
    images = 3 if isinstance(base.module, Upsampler) else 2
    if (sizes.channels, sizes.features, sizes.images) != (channels, base.features, images):
        raise ValueError(
            f"the head {checkpoint.name!r} reads {sizes.features} features of images of {sizes.channels} "
            f"channels, and the network {network.name!r} makes {base.features} of {channels}: give the head "
            "that was trained on it"
        )
    if not isinstance(base.module, Upsampler):
        return attach(network, head, feature=base.feature, embedding=base.embedding)
    process, v = network.process, network.parameterisation.prediction == "v"
    assert isinstance(process, VP)
    rates = (process.beta_min, process.beta_max - process.beta_min)
    module = WithHead(base.module, head, rates if v else None)
    return network.with_module(module, derivative="heads")


def _head(checkpoint: Checkpoint) -> Head:
    where = config_of(checkpoint)
    outer = Fields(checkpoint.config, where)
    fields = outer.inner("genie_model")
    images = 3 if fields.flag("is_upsampler", False) else 2
    channels = fields.whole("num_out_channels", 3, WIDTH) // 3
    features = fields.whole("num_in_channels", 7, WIDTH) - images * channels
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
        images=images,
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


def _read(config: Mapping[str, Any], where: str) -> tuple[Base, dict[str, Any]]:
    """The network, and the arguments of ScoreNetwork beside the module and the name."""
    outer = Fields(config, where)
    fields = outer.inner("diffusion_model")
    sde = outer.inner("sde")
    b0, slope = sde.number("beta_min", 0.0, 1e4, 0.1), sde.number("beta_d", -1e4, 1e4, 19.9)
    make = BASES[fields.choice("name", tuple(BASES))]
    side = fields.whole("image_size", 1, SIDE)
    channels = fields.whole("num_out_channels", 1, WIDTH)
    base = make(fields, side, channels)
    law = {
        "process": VP(beta_min=b0, beta_max=b0 + slope),
        "shape": (channels, side, side),
        "prediction": fields.choice("pred", ("eps", "v"), "eps"),
        "label": Times(fields.number("M", 1e-9, 1e9)),
        "classes": fields.whole("num_classes", 1, 1 << 20, None),
    }
    read = channels * (2 if isinstance(base.module, Upsampler) else 1)
    fields.whole("num_in_channels", read, read, read)
    fields.ignore("ema_rate", "normalization", "attention_type", "init_scale", "fourier_scale")
    fields.ignore("conv_size", "dropout", "ckpt_path", "cond_res")
    outer.ignore("genie_model", *SECTIONS)
    for part in (fields, sde, outer):
        part.done()
    return base, law


def _sizes(fields: Fields) -> dict[str, Any]:
    return {
        "nf": fields.whole("nf", 4, WIDTH),
        "ch_mult": fields.wholes("ch_mult", 1, WIDTH),
        "num_res_blocks": fields.whole("num_res_blocks", 1, COUNT),
        "attn_resolutions": fields.wholes("attn_resolutions", 1, SIDE),
    }


def _ncsnpp(fields: Fields, side: int, channels: int) -> Base:
    fields.choice("resblock_type", ("biggan",), "biggan")
    fields.choice("conditional", (True,), True)
    architecture = Architecture(
        image_size=side,
        num_channels=channels,
        in_channels=channels,
        nonlinearity=nonlinearity(fields, "act_name"),
        fir=fields.flag("fir", False),
        fir_kernel=fields.wholes("fir_kernel", 0, 1000, (1, 3, 3, 1)),
        **_sizes(fields),
        **shared(fields),
    )
    module = built(architecture, fields.where)
    # The last layers are a norm and a convolution; the first embed the time.
    feature = f"all_modules.{len(module.all_modules) - 3}"
    fourier = architecture.embedding_type == "fourier"
    return Base(module, architecture.nf, feature, f"all_modules.{2 if fourier else 1}")


def _ddpm(fields: Fields, side: int, channels: int) -> Base:
    own = _sizes(fields)
    sizes = Sizes(
        side, channels, channels, own["nf"], own["ch_mult"], own["num_res_blocks"], own["attn_resolutions"],
        fields.flag("resamp_with_conv", True),
    )  # fmt: skip
    sizes.check(fields.where)
    kind = "attn" if sizes.attends(0) else "block"
    return Base(on_meta(lambda: UNet(sizes)), sizes.width(0), f"up.0.{kind}.{sizes.blocks}", "temb")


def _openai(fields: Fields, side: int, channels: int) -> Base:
    form, classes, fourier = read_form(fields, side, channels, channels)
    module = on_meta(lambda: OpenAIUNet(form, classes, fourier))
    feature = f"output_blocks.{len(module.output_blocks) - 1}"
    return Base(module, form.widths[0], feature, "embedding")


def _upsampler(fields: Fields, side: int, channels: int) -> Base:
    form, classes, fourier = read_form(fields, side, 2 * channels, channels)
    if not fourier:
        raise ValueError(f"{fields.where} lacks 'fourier_scale', which an upsampler has")
    return Base(on_meta(lambda: Upsampler(form, classes, side)), form.widths[0])


BASES: dict[str, Callable[[Fields, int, int], Base]] = {
    "ncsnpp": _ncsnpp, "ddpm": _ddpm, "openai": _openai, "openai_upsampler": _upsampler,
}  # fmt: skip
