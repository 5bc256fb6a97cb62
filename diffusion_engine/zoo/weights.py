"""Trained networks: weights as safetensors, what they mean in a JSON file beside them.

Nothing here unpickles, and a file is held against the architecture its JSON names before any of
its numbers is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from .. import atomic
from ..genie.head import Head
from .autoencoder import Autoencoder
from .cards import LARGEST_FILE, Card, card, weights
from .classifier import NoisedClassifier
from .context import ContextUNet
from .features import ClassifierFeatures
from .flow_map import FlowMapUNet
from .guided import GuidedUNet
from .latent import LatentUNet
from .small import SmallUNet
from .unet import UNet
from .vdm import VDMUNet

# All that a network holds must be in its state_dict: `load` makes the rest of it on "meta".
ARCHITECTURES: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "latent_unet": LatentUNet,
    "genie_head": Head,
    "flow_map_unet": FlowMapUNet,
    "guided_unet": GuidedUNet,
    "digit_features": ClassifierFeatures,
    "classifier_features": ClassifierFeatures,
    "small_unet": SmallUNet,
    "noised_classifier": NoisedClassifier,
    "vdm_unet": VDMUNet,
    "autoencoder": Autoencoder,
    "context_unet": ContextUNet,
}


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """A network with fresh weights.

    Args:
        architecture: `name`, a key of `ARCHITECTURES`, and that class's keyword arguments.

    Raises:
        ValueError: the name is unknown, or the arguments do not fit the class.
    """
    try:
        arguments = dict(architecture)
        make = ARCHITECTURES[arguments.pop("name")]
        return make(**arguments)
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise ValueError(
            f"architecture {architecture!r} cannot be built ({type(error).__name__}: {error}); "
            f"give a name of {', '.join(ARCHITECTURES)} and that class's arguments"
        ) from error


def load(name: str | os.PathLike[str] = "digits") -> nn.Module:
    """A trained network, float32, on the CPU and in eval mode.

    Args:
        name: a name of `names()`, or the path of a .safetensors file with its .json beside it.

    Raises:
        ValueError: the name is unknown, a file is absent or damaged, or a tensor has another
            name, shape or type than the architecture asks for, or is not finite.
    """
    path, known = weights(name), card(name)
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise ValueError(f"{path} has {size} bytes; {LARGEST_FILE} are the most")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != known.sha256:
        raise ValueError(
            f"{path} does not have the checksum that {path.stem}.json names; restore both files"
        )
    try:
        state = safetensors.torch.load(data)
    except Exception as error:  # The Rust reader raises its own types, and KeyError for a dtype.
        raise ValueError(f"{path} is not a safetensors file ({error}); restore it") from error
    # On "meta" nothing is allocated, however large a network the JSON asks for.
    with torch.device("meta"):
        network = build(known.architecture)
    _check(path, state, network.state_dict(), str(known.dtype))
    whole = {key: value.to(torch.float32, copy=True) for key, value in state.items()}
    network.load_state_dict(whole, assign=True)
    return network.eval()


def _check(path: Path, state: dict[str, Tensor], expected: dict[str, Any], dtype: str) -> None:
    """Raise ValueError unless state holds the expected tensors, of that dtype and finite."""
    if state.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - state), sorted(state.keys() - expected)
        raise ValueError(
            f"{path} lacks the tensors {missing[:4]} and has {extra[:4]} besides; "
            "give the architecture that the weights were trained with"
        )
    for key, value in state.items():
        shape, given = tuple(expected[key].shape), tuple(value.shape)
        if given != shape:
            raise ValueError(
                f"{path}: {key} has shape {given}, not {shape}; "
                "give the architecture that the weights were trained with"
            )
        if str(value.dtype) != f"torch.{dtype}" or not value.is_floating_point():
            raise ValueError(f"{path}: {key} is {value.dtype}, not {dtype}; store it as {dtype}")
        if not value.isfinite().all():
            raise ValueError(f"{path}: {key} holds values that are not finite; train it again")


def save(path: str | os.PathLike[str], network: nn.Module, config: Mapping[str, Any]) -> None:
    """Write a network's weights as float16 to `path` and `config` to the .json beside it.

    Each file appears whole or not at all; the checksum in the JSON tells whether the two belong
    together.

    Args:
        path: ends in .safetensors.
        network: built by `build(config["architecture"])`.
        config: the fields of a Card; `dtype` and `sha256` are added.

    Raises:
        ValueError: the path ends otherwise, a weight is not finite in float16, or this is no card.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} does not end in .safetensors; name the file so")
    state = {
        key: value.detach().cpu().to(torch.float16, memory_format=torch.contiguous_format)
        for key, value in network.state_dict().items()
    }
    _check(path, state, state, "float16")
    data = safetensors.torch.save(state)
    content = {**config, "dtype": "float16", "sha256": hashlib.sha256(data).hexdigest()}
    Card.model_validate(content)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    atomic.write(path, data)
    atomic.write(path.with_suffix(".json"), text.encode())
