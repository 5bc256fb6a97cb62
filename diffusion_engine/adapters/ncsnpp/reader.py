"""What the readers of these networks share: fields of a config as an architecture, and the network built."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..checkpoint import Checkpoint, Fields, fill, on_meta
from .blocks import ACTIVATIONS
from .network import Architecture, NCSNpp

# A number that an architecture may have at most; real ones are far below.
SIDE, WIDTH, COUNT = 1 << 14, 1 << 13, 64


def shared(fields: Fields, pyramid: str = "none") -> dict[str, Any]:
    """The fields of NCSN++ that all its repositories call the same.

    pyramid  the default of progressive_input

    Of `progressive` there is a third way, "residual", which no released network has and their own code does
    not run in torch.
    """
    return {
        "resamp_with_conv": fields.flag("resamp_with_conv", True),
        "skip_rescale": fields.flag("skip_rescale", True),
        "progressive": fields.choice("progressive", ("none", "output_skip"), "none"),
        "progressive_input": fields.choice(
            "progressive_input", ("none", "input_skip", "residual"), pyramid
        ),
        "progressive_combine": fields.choice("progressive_combine", ("sum", "cat"), "sum"),
        "embedding_type": fields.choice("embedding_type", ("positional", "fourier"), "positional"),
    }


def nonlinearity(fields: Fields, name: str = "nonlinearity") -> str:
    return fields.choice(name, tuple(ACTIVATIONS), "swish")


def built(architecture: Architecture, where: str) -> NCSNpp:
    """The network without numbers. Raises ValueError where its sizes do not go together."""
    a = architecture
    if a.image_size % (1 << a.last):
        raise ValueError(
            f"{where}: images of {a.image_size} are halved {a.last} times by ch_mult="
            f"{list(a.ch_mult)}; give a side that {1 << a.last} divides"
        )
    if a.fir and (len(a.fir_kernel) % 2 or not any(a.fir_kernel)):
        raise ValueError(
            f"{where}: fir_kernel={list(a.fir_kernel)}: give an even number of them, not all 0, "
            "as [1, 3, 3, 1]"
        )
    if a.nf % 4:
        raise ValueError(f"{where}: {a.nf} channels make no groups of 4; give a multiple of 4")
    try:
        return on_meta(lambda: NCSNpp(a))
    except ValueError as error:  # of a group norm
        raise ValueError(f"{where} makes no network: {error}") from error


def filled(module: nn.Module, checkpoint: Checkpoint, ignored: tuple[str, ...] = ()) -> nn.Module:
    return fill(module, checkpoint.tensors, f"the checkpoint {checkpoint.name!r}", ignored)


def config_of(checkpoint: Checkpoint) -> str:
    """How errors name its config."""
    return f"the config of {checkpoint.name!r}"


def trained(module: nn.Module) -> list[str]:
    """Names of the parameters in the order of the module: that of a list of averages."""
    return [name for name, _ in module.named_parameters()]
