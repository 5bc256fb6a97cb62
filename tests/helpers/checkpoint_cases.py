"""Small checkpoints in the layouts of public repositories, with weights that are functions of their names."""

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

GOLDEN = Path(__file__).parents[1] / "golden" / "networks.json"
SIDE = 8

_wide = {"img_resolution": SIDE, "img_channels": 3}
_song = _wide | {
    "model_type": "SongUNet", "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1,
}  # fmt: skip
_adm = _wide | {
    "model_type": "DhariwalUNet", "model_channels": 64, "channel_mult": [1, 1], "num_blocks": 1,
    "attn_resolutions": [4],
}  # fmt: skip
_ncsnpp = {
    "embedding_type": "fourier", "channel_mult_noise": 2, "encoder_type": "residual",
    "resample_filter": [1, 3, 3, 1],
}  # fmt: skip
_edm2 = {
    "img_resolution": SIDE, "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1,
    "attn_resolutions": [4], "channels_per_head": 8, "logvar_channels": 8,
}  # fmt: skip
_openai = {
    "image_size": SIDE, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,2",
    "attention_resolutions": "4",
}  # fmt: skip
_classifier = {
    "image_size": SIDE, "classifier_width": 64, "classifier_depth": 1, "channel_mult": "1,1",
    "classifier_attention_resolutions": "4",
}  # fmt: skip

# (format, config) by name; tests/adapters/record_networks.py runs the repositories' own code on them.
CASES = {
    "edm adm": ("edm", {"class_name": "EDMPrecond", "label_dim": 5, **_adm}),
    "edm ddpmpp": (
        "edm",
        {"class_name": "EDMPrecond", "label_dim": 4, "augment_dim": 9, "attn_resolutions": [4], **_song},
    ),
    "edm ve": (
        "edm",
        {"class_name": "VEPrecond", "decoder_type": "skip", "attn_resolutions": [8], **_song, **_ncsnpp},
    ),
    "edm vp": ("edm", {"class_name": "VPPrecond", **_song, "encoder_type": "skip"}),
    "edm iddpm": ("edm", {"class_name": "iDDPMPrecond", "label_dim": 5, "M": 40, **_adm}),
    "edm2": ("edm2", {"img_channels": 3, "label_dim": 5, **_edm2}),
    "edm2 latents": (
        "edm2",
        {
            "img_channels": 4, "label_dim": 0, **_edm2, "clip_act": 2.0, "concat_balance": 0.4,
            "sigma_data": 0.7, "channel_mult_noise": 2, "channel_mult_emb": 3,
            "resample_filter": [1, 3, 3, 1],
        },
    ),
    "guided": (
        "guided_diffusion", {"class_cond": True, "learn_sigma": True, "num_heads": 2, **_openai}
    ),
    "guided updown": (
        "guided_diffusion",
        {
            "learn_sigma": True, "resblock_updown": True, "num_head_channels": 16,
            "use_new_attention_order": True, **_openai,
        },
    ),
    "guided plain": (
        "guided_diffusion",
        {"use_scale_shift_norm": False, "num_heads": 1, "num_heads_upsample": 2, **_openai},
    ),
    "classifier": ("guided_diffusion_classifier", {"classifier_pool": "attention", **_classifier}),
    "classifier means": (
        "guided_diffusion_classifier",
        {
            "classifier_pool": "spatial_v2", "classifier_use_scale_shift_norm": False,
            "classifier_resblock_updown": False, **_classifier,
        },
    ),
    "consistency": (
        "consistency_models",
        {
            "training_mode": "consistency_distillation", "class_cond": True, "num_heads": 2,
            "resblock_updown": True, **_openai,
        },
    ),
}  # fmt: skip


def normals(name, *shape):
    """Standard normals that the name decides, the same with every version of numpy."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


def weight(name, shape):
    """A tensor of a network: of order 1 / sqrt(inputs), norms' about 1, gains and frequencies of order 1."""
    made = normals(name, *shape)
    if len(shape) > 1:
        made = made * np.prod(shape[1:]) ** -0.5
    elif name.endswith(".weight"):
        made = 1.0 + 0.2 * made
    elif name.endswith(".bias"):
        made = 0.2 * made
    return torch.from_numpy(np.asarray(made, np.float32))


@cache
def recorded():
    return json.loads(GOLDEN.read_text())


def golden(name):
    """What the repository's own code said of a case: layout {name: shape}, constants, outputs."""
    return recorded()[name]


@cache
def tensors(name):
    """The state_dict of a case as its repository saves it. Not to be written to."""
    found = golden(name)
    made = {key: weight(key, shape) for key, shape in found["layout"].items()}
    return made | {key: torch.tensor(value) for key, value in found["constants"].items()}


def folder(path, name, **other):
    """A case as a folder; `other` are fields of its config besides, None takes one out."""
    kind, config = CASES[name]
    fields = {k: v for k, v in ({"format": kind} | config | other).items() if v is not None}
    path.mkdir(exist_ok=True)
    save_file(tensors(name), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(fields))
    return path


def images(channels, n=2):
    return torch.from_numpy(normals("x", n, channels, SIDE, SIDE).astype(np.float32))


def told(kind, config):
    """(labels, classes) of two entries: sigmas for EDM's denoisers, timesteps for others."""
    labels = torch.tensor([0.3, 5.0] if kind in ("edm", "edm2") else [3.0, 800.0])
    count = config.get("label_dim") or (1000 if config.get("class_cond") else 0)
    return labels, torch.tensor([1, count if kind in ("edm", "edm2") else 999]) if count else None


def shown(out):
    """Sixteen numbers of an output, and the mean of their sizes, for a file."""
    flat = out.detach().double().flatten()
    some = flat[torch.linspace(0, len(flat) - 1, 16).long()]
    return [float(f"{v:.9g}") for v in (*some.tolist(), float(flat.abs().mean()))]
