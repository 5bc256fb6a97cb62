"""A shipped network, or a user's own file in the same form, as a `ScoreNetwork`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..genie import attach
from ..networks.network import ScoreNetwork
from ..processes import CLD, EDM, VE, VP, FlowMatching, GaussianProcess, SubVP
from .weights import config, load

PROCESSES: dict[str, type[GaussianProcess]] = {
    "vp": VP,
    "subvp": SubVP,
    "ve": VE,
    "edm": EDM,
    "flow": FlowMatching,
    "cld": CLD,
}


def load_network(
    name: str | os.PathLike[str] = "digits", device: str | torch.device = "cpu"
) -> ScoreNetwork:
    """The network of a name of `zoo.names()`, or of a .safetensors file with its .json beside it.

    Raises ValueError where the name is unknown, a file is damaged, or its JSON does not say what a
    ScoreNetwork needs.
    """
    about = config(name)
    if "base" in about:
        return with_head(name, about["base"], device)
    return network_of_card(load(name).to(torch.device(device)), about, str(name))


def network_of_card(module: nn.Module, about: dict[str, Any], name: str) -> ScoreNetwork:
    """The ScoreNetwork of a module by what its card says of it.

    Raises ValueError where the card does not say what a ScoreNetwork needs.
    """
    try:
        settings: dict[str, Any] = dict(about["process"])
        kind = PROCESSES[settings.pop("name")]
        t_min, t_max = about["time"]
        return ScoreNetwork(
            module,
            kind(**settings, t_min=t_min, t_max=t_max),
            tuple(about["shape"]),
            prediction=about["prediction"],
            null=about["null"],
            classes=len(about["classes"]),
            name=name,
            inference=True,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the JSON of network {name!r} lacks or misspells {error}; compare it with that of 'digits'"
        ) from error


def with_head(
    name: str | os.PathLike[str], base: dict[str, str], device: str | torch.device
) -> ScoreNetwork:
    """The network of GENIE's head of that name, `base` with it: its name, checksum and modules' names."""
    try:
        below, trained_with, feature, embedding = (
            base[key] for key in ("name", "sha256", "feature", "embedding")
        )
        if not all(isinstance(value, str) for value in (below, feature, embedding)):
            raise TypeError("a text")
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"'base' in the JSON of head {str(name)!r} lacks {error}; compare it with 'digits_genie'"
        ) from error
    if below.endswith(".safetensors"):
        below = str(Path(name).parent / below)
    if config(below).get("sha256") != trained_with:
        raise ValueError(
            f"the head {str(name)!r} was trained with other weights than those of its base {below!r}; "
            "give that base, or train the head again"
        )
    head = load(name).to(torch.device(device))
    made = attach(load_network(below, device), head, feature=feature, embedding=embedding)
    return made.with_module(made.module, name=str(name))
