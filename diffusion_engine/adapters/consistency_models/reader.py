"""Checkpoints of openai/consistency_models."""

from __future__ import annotations

import os
from typing import Any

from ... import checks
from ...networks.network import OPTIONS, ScoreNetwork
from ..checkpoint import Fields, fill, on_meta, read
from ..guided_diffusion.config import CLASSES, TRAINING, form_of, lists
from ..guided_diffusion.unet import UNetModel
from .network import MODES, convention


def from_consistency_models(path: str | os.PathLike[str], **options: Any) -> ScoreNetwork:
    """A network of openai/consistency_models (Song et al. 2023): a consistency model, or EDM's of that code.

    path     a folder of model.safetensors, with the names of its state_dict, and config.json: "format":
             "consistency_models", "training_mode": "consistency_distillation", "consistency_training", "edm"
             or "progdist", and the flags of its model under their names
    options  of ScoreNetwork, in place of what the files say

    Its own samplers are 'consistency' of a student ("onestep" is 1 step, "multistep" its indices), and 'heun'
    of the others. Raises ValueError where the files are no such checkpoint.
    """
    checks.names("from_consistency_models", options, OPTIONS)
    found = read(path, "consistency_models")
    where = f"the config of {found.name}"
    fields = Fields(lists(found.config, where), where)
    fields.ignore(*TRAINING)
    mode = fields.choice("training_mode", MODES)
    side = fields.whole("image_size", 1, 1 << 13, 64)
    channels = fields.whole("in_channels", 1, 1 << 12, 3)
    known = fields.whole("num_classes", 1, 1 << 20, CLASSES)
    classes = known if fields.flag("class_cond", False) else None
    low = fields.number("sigma_min", 1e-6, 1e6, 0.002)
    said = convention(mode, low, fields.number("sigma_max", 1e-6, 1e9, 80.0))
    if fields.flag("learn_sigma", False):
        raise ValueError(f"{where}: learn_sigma: none of its samplers takes a learned variance")
    # Its attention divides q, k and v before heads, whatever use_new_attention_order says.
    form = form_of(
        fields, side, channels, channels=channels, flat=False, order="k n c", attending=(32, 16, 8)
    )
    fields.done()
    module = fill(on_meta(lambda: UNetModel(form, classes)), found.tensors, found.name)
    said |= {
        "shape": (channels, side, side), "classes": classes, "name": found.name, "inference": True,
    }  # fmt: skip
    return ScoreNetwork(module, **(said | options))
