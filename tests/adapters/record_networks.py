"""Writes tests/golden/networks.json: what the repositories' own code makes of the cases of checkpoint_cases.

Run it with checkouts of the four repositories, in any environment that has torch; nothing else of theirs is
needed, since what they import besides is not used here:

    PYTHONPATH=tests/helpers python tests/adapters/record_networks.py \\
        EDM EDM2 GUIDED_DIFFUSION CONSISTENCY_MODELS
"""

import importlib
import json
import sys
import types
from contextlib import contextmanager
from inspect import signature

import torch
from checkpoint_cases import CASES, GOLDEN, images, shown, told, weight

CONSTANT = ("resample_filter", "u")
PACKAGES = ("training", "torch_utils", "dnnlib", "guided_diffusion", "cm")
UNUSED = (
    "mpi4py", "blobfile", "piq", "torchvision", "torchvision.transforms", "flash_attn",
    "flash_attn.flash_attention",
)  # fmt: skip


class FlashAttention(torch.nn.Module):
    """Attention of qkv [batch, positions, 3, heads, channels], in place of a package for GPUs."""

    def __init__(self, attention_dropout=0.0, device=None, dtype=None):
        super().__init__()

    def forward(self, qkv, **unused):
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        seen = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return seen.transpose(1, 2), None


def stand_ins():
    for name in UNUSED:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["mpi4py"].MPI = sys.modules["piq"].LPIPS = None
    sys.modules["torchvision.transforms"].RandomCrop = None
    sys.modules["flash_attn.flash_attention"].FlashAttention = FlashAttention


@contextmanager
def repository(path):
    """Imports of one checkout; two of them have packages of the same names."""
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)
        for name in [n for n in sys.modules if n.split(".")[0] in PACKAGES]:
            del sys.modules[name]


def network(kind, config):
    """The repository's module of a case, and a function of (x, labels, classes) that calls it."""
    if kind in ("edm", "edm2"):
        module = importlib.import_module("training.networks" + ("_edm2" if kind == "edm2" else ""))
        rest = dict(config)
        net = getattr(module, rest.pop("class_name", "Precond"))(**rest)

        def call(x, sigma, classes):
            known = None
            if classes is not None:
                count = config["label_dim"]
                known = torch.nn.functional.one_hot(classes, count + 1)[:, :count].float()
            sigma = getattr(net, "round_sigma", lambda s: s)(sigma)
            return net(x * sigma.view(-1, 1, 1, 1), sigma, known)

        return net, call
    package = "cm" if kind == "consistency_models" else "guided_diffusion"
    scripts = importlib.import_module(f"{package}.script_util")
    if kind == "guided_diffusion_classifier":
        return classifier(importlib.import_module(f"{package}.unet"), scripts, config)
    fields = scripts.model_and_diffusion_defaults() | config
    net = scripts.create_model(**{n: fields[n] for n in signature(scripts.create_model).parameters})
    return net, net


def classifier(unet, scripts, config):
    """As create_classifier makes it, which knows no widths for small images."""
    fields = scripts.classifier_defaults() | config
    side, mults = fields["image_size"], tuple(map(int, fields["channel_mult"].split(",")))
    where = tuple(side // int(r) for r in fields["classifier_attention_resolutions"].split(","))
    net = unet.EncoderUNetModel(
        image_size=side, in_channels=3, model_channels=fields["classifier_width"], out_channels=1000,
        num_res_blocks=fields["classifier_depth"], attention_resolutions=where, channel_mult=mults,
        num_head_channels=64, use_scale_shift_norm=fields["classifier_use_scale_shift_norm"],
        resblock_updown=fields["classifier_resblock_updown"], pool=fields["classifier_pool"],
    )  # fmt: skip
    return net, lambda x, t, y: net(x, t)


def recorded(kind, config):
    net, call = network(kind, config)
    net.eval()
    own = net.state_dict()
    constants = {name: t.tolist() for name, t in own.items() if name.split(".")[-1] in CONSTANT}
    layout = {name: list(t.shape) for name, t in own.items() if name not in constants}
    net.load_state_dict(
        {name: weight(name, shape) for name, shape in layout.items()}, strict=not constants
    )
    labels, classes = told(kind, config)
    with torch.no_grad():
        out = call(images(config.get("img_channels", 3)), labels, classes)
    return {"layout": layout, "constants": constants, "outputs": shown(out)}


def main(*paths):
    stand_ins()
    homes = dict(zip(("edm", "edm2", "guided_diffusion", "consistency_models"), paths, strict=True))
    homes["guided_diffusion_classifier"] = homes["guided_diffusion"]
    made = {}
    for name, (kind, config) in CASES.items():
        with repository(homes[kind]):
            made[name] = recorded(kind, config)
    lines = (f"  {json.dumps(name)}: {json.dumps(case)}" for name, case in made.items())
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
