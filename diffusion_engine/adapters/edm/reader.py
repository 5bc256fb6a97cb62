"""Checkpoints of EDM: their networks, and what each preconditioning tells them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ... import checks
from ...networks.network import OPTIONS, ScoreNetwork
from ...networks.prediction import F, VEScale, VPScale
from ...processes import EDM
from ..checkpoint import Fields, fill, on_meta, read
from ..layers.resample import BOX, kernel
from .dhariwal import DhariwalUNet
from .levels import Rounded, Table, bounds, rounded_karras
from .network import Labelled
from .song import DECODERS, EMBEDDINGS, ENCODERS, SongUNet

PRECONDITIONINGS = ("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond")
UNUSED = ("model.map_augment.weight",)  # told at training alone


def from_edm(path: str | os.PathLike[str], **options: Any) -> ScoreNetwork:
    """A network of EDM (Karras et al. 2022), out of its state_dict and its arguments.

    path     a folder of model.safetensors, with the names of EDM's state_dict, and config.json: "format":
             "edm", "class_name": "EDMPrecond", "VPPrecond", "VEPrecond" or "iDDPMPrecond", and the arguments
             of that and of its model_type, "SongUNet" or "DhariwalUNet", under EDM's names
    options  of ScoreNetwork, in place of what the two say

    A condition is a class; the class label_dim, one more than there are, is the unconditional branch. Raises
    ValueError where the files are no such checkpoint.
    """
    checks.names("from_edm", options, OPTIONS)
    found = read(path, "edm")
    fields, tensors = Fields(found.config, f"the config of {found.name}"), dict(found.tensors)
    kind = fields.choice("class_name", PRECONDITIONINGS, "EDMPrecond")
    channels = fields.whole("img_channels", 1, 1 << 12)
    side = fields.whole("img_resolution", 1, 1 << 13)
    label_dim = fields.whole("label_dim", 0, 1 << 20, 0)
    fields.ignore("use_fp16", "dropout", "label_dropout", "augment_dim")
    said = CONVENTIONS[kind](fields, tensors)
    outputs = 2 * channels if kind == "iDDPMPrecond" else channels
    build = network_of(fields, kind, side, channels, outputs, label_dim, tensors)
    fields.done()
    module = fill(on_meta(lambda: Labelled(build(), label_dim)), tensors, found.name, UNUSED)
    said |= {
        "shape": (channels, side, side), "classes": label_dim or None, "null": label_dim or None,
        "name": found.name, "inference": True,
    }  # fmt: skip
    return ScoreNetwork(module, **(said | options))


def network_of(
    fields: Fields, kind: str, side: int, channels: int, outputs: int, label_dim: int,
    tensors: dict[str, Tensor],
) -> Callable[[], nn.Module]:  # fmt: skip
    """What builds the inner network. Constant filters leave the tensors."""
    default = "DhariwalUNet" if kind in ("EDMPrecond", "iDDPMPrecond") else "SongUNet"
    model = fields.choice("model_type", ("SongUNet", "DhariwalUNet"), default)
    song = model == "SongUNet"
    mults = fields.wholes("channel_mult", 1, 64, (1, 2, 2, 2) if song else (1, 2, 3, 4), 12)
    common: dict[str, Any] = {
        "img_resolution": side, "in_channels": channels, "out_channels": outputs, "label_dim": label_dim,
        "model_channels": fields.whole("model_channels", 4, 1 << 14, 128 if song else 192),
        "channel_mult": mults,
        "channel_mult_emb": fields.whole("channel_mult_emb", 1, 64, 4),
        "num_blocks": fields.whole("num_blocks", 1, 64, 4 if song else 3),
        "attn_resolutions": sides(fields, (16,) if song else (32, 16, 8)),
    }  # fmt: skip
    check_sides(fields.where, side, len(mults))
    taps = fields.wholes("resample_filter", 1, 1 << 10, BOX, 16) if song else BOX
    drop_filters(tensors, taps, fields.where)
    if not song:
        return lambda: DhariwalUNet(**common)
    own = {
        "embedding_type": fields.choice("embedding_type", EMBEDDINGS, "positional"),
        "channel_mult_noise": fields.whole("channel_mult_noise", 1, 64, 1),
        "encoder_type": fields.choice("encoder_type", ENCODERS, "standard"),
        "decoder_type": fields.choice("decoder_type", DECODERS, "standard"),
        "resample_filter": taps,
    }
    return lambda: SongUNet(**common, **own)


def sides(fields: Fields, default: tuple[int, ...]) -> tuple[int, ...]:
    """attn_resolutions, which may be none."""
    if fields.config.get("attn_resolutions") == []:
        fields.ignore("attn_resolutions")
        return ()
    return fields.wholes("attn_resolutions", 1, 1 << 13, default)


def check_sides(where: str, side: int, levels: int) -> None:
    """Raises ValueError where an image cannot be halved as often as the network does."""
    if side % (1 << (levels - 1)):
        raise ValueError(
            f"{where}: {levels} levels of channel_mult halve an image of {side} {levels - 1} times, and it "
            f"is no multiple of {1 << (levels - 1)}"
        )


def drop_filters(tensors: dict[str, Tensor], taps: tuple[int, ...], where: str) -> None:
    """Takes the filters of changes of size out of the tensors, which are those of the config.

    Raises ValueError where one is another, or the taps are an odd number.
    """
    if len(taps) % 2:
        raise ValueError(f"{where}: resample_filter={list(taps)}: it has an even number of taps")
    own = kernel(taps)
    for name in [name for name in tensors if name.endswith(".resample_filter")]:
        given = tensors.pop(name).float()
        if given.numel() != own.numel() or not torch.allclose(given.reshape(own.shape), own):
            raise ValueError(
                f"{where}: resample_filter={list(taps)}, and {name} of the weights is another filter"
            )


def _edm(fields: Fields, tensors: dict[str, Tensor]) -> dict[str, Any]:
    data = fields.number("sigma_data", 1e-6, 1e6, 0.5)
    low, high = _ends(fields, 0.0, math.inf)
    return {
        "process": EDM(t_min=low, t_max=high), "prediction": F(data), "label": "log_sigma/4",
    }  # fmt: skip


def _vp(fields: Fields, tensors: dict[str, Tensor]) -> dict[str, Any]:
    slope = fields.number("beta_d", 0.0, 1e4, 19.9)
    least = fields.number("beta_min", 1e-6, 1e4, 0.1)
    last = fields.whole("M", 2, 1 << 20, 1000) - 1.0
    t = fields.number("epsilon_t", 0.0, 1.0, 1e-5)
    rule = VPScale(beta_min=least, beta_max=least + slope, last=last)

    def sigma(t: float) -> float:
        return math.sqrt(math.expm1(0.5 * slope * t * t + least * t))

    low, high = bounds(sigma(t), sigma(1.0))
    return {
        "process": EDM(t_min=low, t_max=high), "prediction": rule, "label": rule.c_noise,
    }  # fmt: skip


def _ve(fields: Fields, tensors: dict[str, Tensor]) -> dict[str, Any]:
    low, high = _ends(fields, 0.02, 100.0)
    rule = VEScale()
    return {
        "process": EDM(t_min=low, t_max=high), "prediction": rule, "label": rule.c_noise,
    }  # fmt: skip


def _iddpm(fields: Fields, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Its levels are a table u, noisiest first, of which the network is told the index from the end."""
    count = fields.whole("M", 2, 1 << 20, 1000)
    fields.ignore("C_1", "C_2")  # u was made of them
    u = tensors.pop("u", None)
    if u is None or u.shape != (count + 1,) or u[-1] != 0.0 or not u.isfinite().all():
        found = "lacks" if u is None else f"has otherwise, of the shape {list(u.shape)}"
        raise ValueError(
            f"{fields.where}: iDDPMPrecond with M={count} keeps {count + 1} levels that fall to 0 as 'u', "
            f"which model.safetensors {found}"
        )
    table = Table(tuple(u.double().flip(0).tolist()))
    low, high = bounds(table.levels[1], table.levels[-1])
    return {
        "process": Rounded(t_min=low, t_max=high, nearest=table), "prediction": VPScale(),
        "label": table.timestep, "grid": rounded_karras,
    }  # fmt: skip


def _ends(fields: Fields, low: float, high: float) -> tuple[float, float]:
    """The levels that a network was made for."""
    least = fields.number("sigma_min", 0.0, 1e30, low)
    most = fields.number("sigma_max", 0.0, 1e30, None)
    return bounds(least, high if most is None else most)


CONVENTIONS: dict[str, Callable[[Fields, dict[str, Tensor]], dict[str, Any]]] = {
    "EDMPrecond": _edm, "VPPrecond": _vp, "VEPrecond": _ve, "iDDPMPrecond": _iddpm,
}  # fmt: skip
