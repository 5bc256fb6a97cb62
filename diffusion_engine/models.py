"""Networks by what names them on a command line, in settings and to workers."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .networks.network import ScoreNetwork
    from .solvers import Solver


def network_of(
    model: str, rule: Solver | None = None, device: torch.device | str = "cpu"
) -> ScoreNetwork:
    """The network that --model names, its weights on the device.

    rule  the solver that a closed form has to suit, DDIM if None
    """
    from .adapters.checkpoint import folder
    from .zoo import load_network, names

    if model == "exact":
        from .solvers import solver
        from .testing import exact_network

        return exact_network(rule or solver("ddim"))
    if model not in names() and folder.is_checkpoint(model):
        return checkpoint(model, device)
    if ":" in model:
        return imported(model)
    return load_network(model, device)


def checkpoint(path: str, device: torch.device | str) -> ScoreNetwork:
    """The network of a folder of config.json and model.safetensors, its weights on the device."""
    from torch import nn

    from .adapters.checkpoint import open_checkpoint
    from .networks.network import ScoreNetwork

    made = open_checkpoint(path)
    if not isinstance(made, ScoreNetwork):  # a part of one has a format as well
        raise ValueError(
            f"--model {path} holds a {type(made).__name__}, which is no network by itself; name the folder "
            "of the network that it belongs to"
        )
    if isinstance(made.module, nn.Module):
        made.module.to(device)
    return made


def imported(name: str) -> ScoreNetwork:
    """The ScoreNetwork of "package.module:name": what is found there, or returned by it."""
    from .networks.network import ScoreNetwork

    made = found(
        "--model", name, lambda it: it if isinstance(it, ScoreNetwork) or not callable(it) else it()
    )
    if not isinstance(made, ScoreNetwork):
        raise ValueError(
            f"--model {name!r} is a {type(made).__name__}; name a ScoreNetwork, or a function without "
            "arguments that returns one"
        )
    return made


def found(option: str, name: str, made: Callable[[Any], Any] = lambda it: it) -> Any:
    """What is made of what is at "package.module:name". Raises ValueError, which names the option."""
    package, _, attribute = name.partition(":")
    # As `python -m` does; a command's own first folder is its script's.
    sys.path.insert(0, os.getcwd())
    try:
        return made(getattr(importlib.import_module(package), attribute))
    except Exception as error:  # whatever the user's own code raises
        raise ValueError(
            f"{option} {name!r}: {type(error).__name__}: {error}; write package.module:name, in a module "
            "that python finds here"
        ) from error
