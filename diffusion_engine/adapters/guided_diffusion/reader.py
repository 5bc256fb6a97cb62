"""Checkpoints of guided-diffusion."""

from __future__ import annotations

import os
from typing import Any

from ... import checks
from ...networks.classifier import with_classifier
from ...networks.network import OPTIONS, ScoreNetwork
from ..checkpoint import Fields, fill, on_meta, read
from .config import CLASSES, TRAINING, form_of, lists
from .noising import SCHEDULES, convention
from .unet import POOLS, EncoderUNetModel, SuperResModel, UNetModel

SCHEDULE = (
    "noise_schedule", "diffusion_steps", "timestep_respacing", "predict_xstart", "rescale_timesteps",
    "learn_sigma",
)  # fmt: skip


def from_guided_diffusion(
    path: str | os.PathLike[str],
    classifier: str | os.PathLike[str] | None = None,
    **options: Any,
) -> ScoreNetwork:
    """A network of guided-diffusion (Dhariwal & Nichol 2021).

    path        a folder of model.safetensors, with the names of its state_dict, and config.json: "format":
                "guided_diffusion" and the flags of its model and diffusion under their names, left out where
                they are its script's defaults. large_size and small_size make it a network that enlarges
                images, which are its condition {"low_res": [n, channels, small_size, small_size]}
    classifier  a folder as `classifier_of` takes it, for Sampler(classifier_scale=)
    options     of ScoreNetwork, in place of what the files say

    Its own sampler is 'ddpm' with variance="learned_range", or "fixed_large" where learn_sigma is false. The
    classes have none for an unconditional branch. Raises ValueError where the files are no such checkpoint.
    """
    checks.names("from_guided_diffusion", options, OPTIONS)
    found = read(path, "guided_diffusion")
    where = f"the config of {found.name}"
    config = lists(found.config, where)
    respacing = config.pop("timestep_respacing", "")
    fields = Fields(config, where)
    fields.ignore(*TRAINING)
    enlarges = "large_size" in fields
    side = fields.whole("large_size" if enlarges else "image_size", 1, 1 << 13, 64)
    if enlarges:
        fields.whole("small_size", 1, 1 << 13, 64)
    channels = fields.whole("in_channels", 1, 1 << 12, 3)
    known = fields.whole("num_classes", 1, 1 << 20, CLASSES)
    classes = known if fields.flag("class_cond", False) else None
    learned = fields.flag("learn_sigma", False)
    said = convention(
        fields.choice("noise_schedule", SCHEDULES, "linear"),
        fields.whole("diffusion_steps", 1, 1 << 20, 1000), respacing,
        fields.flag("predict_xstart", False), fields.flag("rescale_timesteps", False), learned,
    )  # fmt: skip
    outputs = 2 * channels if learned else channels
    if enlarges and side == 512:  # whose widths its script gives otherwise than those of the others
        config.setdefault("channel_mult", [1, 1, 2, 2, 4, 4])
    form = form_of(fields, side, outputs, channels=2 * channels if enlarges else channels)
    fields.done()
    kind = SuperResModel if enlarges else UNetModel
    module = fill(on_meta(lambda: kind(form, classes)), found.tensors, found.name)
    said |= {
        "shape": (channels, side, side), "name": found.name, "inference": True,
        "classes": None if enlarges else classes,
    }  # fmt: skip
    network = ScoreNetwork(module, **(said | options))
    return network if classifier is None else with_classifier(network, classifier_of(classifier))


def classifier_of(path: str | os.PathLike[str]) -> EncoderUNetModel:
    """A noise-aware classifier of guided-diffusion, classifier(x, timesteps) -> logits.

    path  a folder of model.safetensors and config.json: "format": "guided_diffusion_classifier", image_size
          and the flags classifier_width, classifier_depth, ... under their names

    Raises ValueError where the files are no such classifier.
    """
    found = read(path, "guided_diffusion_classifier")
    where = f"the config of {found.name}"
    fields = Fields(lists(found.config, where), where)
    fields.ignore("classifier_use_fp16", *TRAINING, *SCHEDULE)
    side = fields.whole("image_size", 1, 1 << 13, 64)
    channels = fields.whole("in_channels", 1, 1 << 12, 3)
    classes = fields.whole("num_classes", 1, 1 << 20, CLASSES)
    pool = fields.choice("classifier_pool", POOLS, "attention")
    form = form_of(
        fields, side, classes, channels=channels, prefix="classifier_", attending=(32, 16, 8)
    )
    fields.done()
    return fill(on_meta(lambda: EncoderUNetModel(form, side, pool)), found.tensors, found.name)
