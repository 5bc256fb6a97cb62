"""Which reader a format of checkpoints has: "module:function", imported when it is asked for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ... import checks
from .folder import FORM, config_of, files, format_of

if TYPE_CHECKING:
    from ...networks.network import ScoreNetwork

# from_<family>(path, **options) -> ScoreNetwork
READERS: dict[str, str] = {
    "cld_sgm": "diffusion_engine.adapters.cld_sgm:from_cld_sgm",
    "consistency_models": "diffusion_engine.adapters.consistency_models:from_consistency_models",
    "ddgan": "diffusion_engine.adapters.ddgan:from_ddgan",
    "edm": "diffusion_engine.adapters.edm:from_edm",
    "edm2": "diffusion_engine.adapters.edm2:from_edm2",
    "genie": "diffusion_engine.adapters.genie:from_genie",
    "genie_head": "diffusion_engine.adapters.genie:from_genie_head",
    "guided_diffusion": "diffusion_engine.adapters.guided_diffusion:from_guided_diffusion",
    "lerobot_diffusion": "diffusion_engine.adapters.lerobot:from_lerobot",
    "score_sde": "diffusion_engine.adapters.score_sde:from_score_sde",
    "vdm": "diffusion_engine.adapters.vdm:from_vdm",
}

# What stands beside networks and is none: it is converted as they are, and read by its own function
PARTS: dict[str, str] = {
    "guided_diffusion_classifier": "diffusion_engine.adapters.guided_diffusion:classifier_of",
}

# parameter_names(config) -> names of the network's trained parameters in the order in which it holds them,
# for checkpoints whose averages are a list without names
PARAMETERS: dict[str, str] = {
    "cld_sgm": "diffusion_engine.adapters.cld_sgm:parameter_names",
    "ddgan": "diffusion_engine.adapters.ddgan:parameter_names",
    "genie": "diffusion_engine.adapters.genie:parameter_names",
    "score_sde": "diffusion_engine.adapters.score_sde:parameter_names",
}


def open_checkpoint(path: str | os.PathLike[str], **options: Any) -> ScoreNetwork:
    """The network of a checkpoint, by the reader of the format that its config names.

    path     a folder of config.json and model.safetensors, or a .safetensors file with its .json beside it
    options  of that reader

    Nothing in the files is run. Raises ValueError where the format is unknown, or its reader takes something
    in the files otherwise.
    """
    config_path, _ = files(path)
    name = format_of(config_of(config_path))
    if not isinstance(name, str) or name not in READERS:
        raise ValueError(
            f"{config_path} names {_said(name)}; known are {', '.join(sorted(READERS))}"
            f"{checks.nearest([name], READERS) if isinstance(name, str) else ''}. {FORM[0].upper()}{FORM[1:]}"
        )
    reader: Callable[..., ScoreNetwork] = found(READERS[name])
    return reader(path, **options)


def check(path: str | os.PathLike[str]) -> None:
    """Raises ValueError where a checkpoint is no network, nor one of PARTS, that can be read."""
    name = format_of(config_of(files(path)[0]))
    if name in PARTS:
        found(PARTS[name])(path)
    else:
        open_checkpoint(path)


def found(place: str) -> Any:
    """What is at "module:name" of the tables above."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _said(name: Any) -> str:
    return 'no "format"' if name is None else f"the format {checks.said(name)}"
