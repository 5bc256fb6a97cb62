"""Checkpoints of EDM2."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import Tensor

from ... import checks
from ...networks.network import OPTIONS, ScoreNetwork
from ...networks.prediction import F
from ...processes import EDM
from ..checkpoint import Fields, fill, on_meta, read
from ..edm.levels import LEAST, MOST
from ..edm.reader import check_sides, sides
from ..layers.resample import BOX
from .block import EPS, Style
from .unet import EDM2, UNet


def from_edm2(path: str | os.PathLike[str], **options: Any) -> ScoreNetwork:
    """A network of EDM2 (Karras et al. 2024), out of its state_dict and its arguments.

    path     a folder of model.safetensors, with the names of EDM2's state_dict, and config.json: "format":
             "edm2" and the arguments of its Precond, UNet and Block under EDM2's names
    options  of ScoreNetwork, in place of what the two say

    A condition is a class; the class label_dim, one more than there are, is all zeros. Weights are normalised
    here, once, in place of in each call. Raises ValueError where the files are no such checkpoint.
    """
    checks.names("from_edm2", options, OPTIONS)
    found = read(path, "edm2")
    fields = Fields(found.config, f"the config of {found.name}")
    fields.choice("class_name", ("Precond",), "Precond")
    channels = fields.whole("img_channels", 1, 1 << 12)
    side = fields.whole("img_resolution", 1, 1 << 13)
    label_dim = fields.whole("label_dim", 0, 1 << 20)
    data = fields.number("sigma_data", 1e-6, 1e6, 0.5)
    logvar = fields.whole("logvar_channels", 1, 1 << 14, 128)
    about = architecture(fields, side)
    fields.ignore("use_fp16", "dropout")
    fields.done()
    module = on_meta(lambda: EDM2(UNet(side, channels, label_dim, **about), label_dim, logvar))
    fill(module, normalised(found.tensors), found.name)
    said: dict[str, Any] = {
        "process": EDM(t_min=LEAST, t_max=MOST), "shape": (channels, side, side), "prediction": F(data),
        "label": "log_sigma/4", "classes": label_dim or None, "null": label_dim or None,
        "name": found.name, "inference": True,
    }  # fmt: skip
    return ScoreNetwork(module, **(said | options))


def architecture(fields: Fields, side: int) -> dict[str, Any]:
    """The arguments of UNet but for the image's."""
    base = fields.whole("model_channels", 1, 1 << 14, 192)
    mults = fields.wholes("channel_mult", 1, 64, (1, 2, 3, 4), 12)
    check_sides(fields.where, side, len(mults))
    widths = [base * mult for mult in mults]
    noise = fields.whole("channel_mult_noise", 1, 64, None)
    embedded = fields.whole("channel_mult_emb", 1, 64, None)
    taps = fields.wholes("resample_filter", 1, 1 << 10, BOX, 16)
    if len(taps) % 2:
        raise ValueError(
            f"{fields.where}: resample_filter={list(taps)}: it has an even number of taps"
        )
    unclipped = "clip_act" in fields and fields.config["clip_act"] is None
    style = Style(
        embedded=base * embedded if embedded else max(widths),
        resample_filter=taps,
        channels_per_head=fields.whole("channels_per_head", 1, 1 << 14, 64),
        res_balance=fields.number("res_balance", 0.0, 1.0, 0.3),
        attn_balance=fields.number("attn_balance", 0.0, 1.0, 0.3),
        clip_act=fields.number("clip_act", 0.0, 1e30, None if unclipped else 256.0),
    )
    return {
        "widths": widths,
        "noise": base * noise if noise else widths[0],
        "num_blocks": fields.whole("num_blocks", 1, 64, 3),
        "attn_resolutions": sides(fields, (16, 8)),
        "label_balance": fields.number("label_balance", 0.0, 1.0, 0.5),
        "concat_balance": fields.number("concat_balance", 0.0, 1.0, 0.5),
        "style": style,
    }


def normalised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as their layers apply them: w / (eps sqrt(n) + |w|) of the n numbers of an output (eq. 47)."""
    made = dict(tensors)
    for name, weight in tensors.items():
        if name.endswith(".weight") and weight.is_floating_point() and weight.ndim > 1:
            rows = weight.double().flatten(1)
            size = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            scaled = rows / (EPS * math.sqrt(rows.shape[1]) + size)
            made[name] = scaled.float().reshape(weight.shape)
    return made
