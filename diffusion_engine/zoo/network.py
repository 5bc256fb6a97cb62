"""A shipped network, or a user's own file in the same form, as a `ScoreNetwork`."""

from __future__ import annotations

import os
from typing import Any

import torch

from ..network import ScoreNetwork
from ..processes import CLD, EDM, VE, VP, FlowMatching, GaussianProcess, SubVP
from . import config, load

PROCESSES: dict[str, type[GaussianProcess]] = {
    "vp": VP,
    "subvp": SubVP,
    "ve": VE,
    "edm": EDM,
    "flow": FlowMatching,
    "cld": CLD,
}


def network(
    name: str | os.PathLike[str] = "digits", device: str | torch.device = "cpu"
) -> ScoreNetwork:
    """The network of a name of `zoo.names()`, or of a .safetensors file with its .json beside it.

    Raises ValueError where the name is unknown, a file is damaged, or its JSON does not say what a
    ScoreNetwork needs.
    """
    about = config(name)
    module = load(name).to(torch.device(device))
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
            name=str(name),
            inference=True,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the JSON of network {str(name)!r} lacks or misspells {error}; compare it with that of 'digits'"
        ) from error
