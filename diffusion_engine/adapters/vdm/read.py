"""Checkpoints of google-research/vdm: the tree of flax, its names joined by slashes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ...networks.network import ScoreNetwork
from ...processes import VDM
from ..checkpoint import Fields, fill, on_meta, read
from .network import ScoreUNet
from .schedule import MonotoneGamma

SCHEDULES = ("fixed", "learnable_scalar", "learnable_nnet")
# Fields of its config.model that say how it was trained, or how images are chosen at the end.
TRAINING = (
    "antithetic_time_sampling",
    "sample_softmax",
    "sm_n_timesteps",
    "sm_pdrop",
    "vocab_size",
)
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def from_vdm(path: str | os.PathLike[str], **options: Any) -> ScoreNetwork:
    """A checkpoint of google-research/vdm, as `diffusion-engine convert` makes it of a file of flax.

    The config holds that repository's `config.model`, `image_size` and, where it is not 3, `channels`.
    Its labels are gamma(t), its data 2 (v + 0.5) / 256 - 1 of bytes v; solver "vdm" is its sampler.

    path     a folder of config.json and model.safetensors
    options  of ScoreNetwork

    Raises ValueError where the config or the tensors are not those of such a network.
    """
    found = read(path, "vdm")
    fields = Fields(found.config, f"the config of {found.name}")
    low = fields.number("gamma_min", -100.0, 100.0)
    high = fields.number("gamma_max", low, 100.0)
    kind = fields.choice("gamma_type", SCHEDULES)
    channels, size = fields.whole("channels", 1, 64, 3), fields.whole("image_size", 1, 4096)
    width = fields.whole("sm_n_embd", 32, 8192)
    if width % 32:
        raise ValueError(f"{fields.where}: sm_n_embd={width}: its norms have 32 groups, of as many")
    layers = fields.whole("sm_n_layer", 1, 512)
    attention, fourier = fields.flag("with_attention"), fields.flag("with_fourier_features")
    fields.ignore(*TRAINING)
    fields.done()
    module = on_meta(lambda: ScoreUNet(channels, width, layers, attention, fourier, (low, high)))
    tensors = named(found.tensors, found.name)
    if other := [name for name in tensors if not name.startswith(("score_model.", "gamma."))]:
        raise ValueError(
            f"{found.name} has tensors of neither score_model nor gamma: {', '.join(other[:4])}"
        )
    fill(module, part(tensors, "score_model."), found.name)
    process = process_of(kind, low, high, part(tensors, "gamma."), found.name)
    return vdm_network(module, process, (channels, size, size), **{"name": found.name} | options)


def vdm_network(
    module: Callable[..., Any], process: VDM, shape: tuple[int, ...], **options: Any
) -> ScoreNetwork:
    """A module of VDM's convention: eps of (z, gamma(t)), the residual z added within.

    options  of ScoreNetwork
    """
    return ScoreNetwork(module, process, shape, **{"prediction": "eps", "label": "gamma"} | options)


def named(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors of a flax tree by torch's names, in torch's layout: of a convolution OIHW, not HWIO.

    Raises ValueError where two get one name.
    """
    made = {}
    for name, tensor in tensors.items():
        *path, leaf = name.removeprefix("params/").split("/")
        if leaf == "kernel" and tensor.ndim > 1:
            tensor = tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.mT
            if path[-1:] == ["nin_shortcut"]:  # which is a convolution of one pixel here
                tensor = tensor[:, :, None, None]
            tensor = tensor.contiguous()
        made[".".join([*path, LEAVES.get(leaf, leaf)])] = tensor
    if len(made) < len(tensors):
        raise ValueError(
            f"{where} has {len(tensors) - len(made)} tensors besides, of one place twice"
        )
    return made


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def process_of(
    kind: str, low: float, high: float, tensors: Mapping[str, Tensor], where: str
) -> VDM:
    """The process of a noise schedule of that repository, fixed or learned."""
    if kind == "learnable_nnet":
        hidden = tensors["l2.bias"].numel() if "l2.bias" in tensors else 1024
        return VDM.from_module(
            fill(on_meta(lambda: MonotoneGamma(low, high, hidden)), tensors, where)
        )
    wanted = {"w", "b"} if kind == "learnable_scalar" else set()
    if tensors.keys() != wanted or any(t.numel() != 1 for t in tensors.values()):
        raise ValueError(
            f"{where} has the tensors {sorted(tensors)} of its gamma, and gamma_type {kind!r} needs "
            f"{sorted(wanted)}: say the type that it was trained with"
        )
    if kind == "fixed":
        return VDM.linear(low, high)
    w, b = tensors["w"].item(), tensors["b"].item()
    return VDM.linear(b, b + abs(w))
