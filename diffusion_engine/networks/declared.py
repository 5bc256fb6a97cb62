"""What a ScoreNetwork says of itself, checked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import checks
from ..processes import CLD, GaussianProcess, grids
from .prediction import PREDICTIONS, Velocity

if TYPE_CHECKING:
    from .network import ScoreNetwork

HALF = (torch.bfloat16, torch.float16)
LABEL_DTYPES = (torch.float32, torch.float64, torch.int64, *HALF)
FORMATS = (torch.contiguous_format, torch.channels_last)
NULL = "the class of the unconditional branch, often one more than there are"


def declared(network: ScoreNetwork, labels: Mapping[str, Any]) -> None:
    """Puts its numbers into Python's own kinds.

    labels  the names of label rules

    Raises ValueError where one makes no sense, does not go with another, or a weight is not finite.
    """

    if not isinstance(network.process, GaussianProcess):
        raise ValueError(
            f"process={network.process!r} is no noising process, such as VP() or EDM()"
        )
    object.__setattr__(network, "shape", checks.shape(network.shape))
    checks.function("module", network.module, "give a torch.nn.Module or a function of (x, label)")
    for kind, table in (("prediction", PREDICTIONS), ("label", labels), ("grid", grids.GRIDS)):
        _named(network, kind, table)
    _named(network, "scale", ("one", "sigma", "F"))
    settle = partial(checks.settle, network)
    settle("classes", checks.whole, 1, "the number of classes, 1 or more, or None")
    settle("gradient", checks.whole, 1, "the channel block of the gradient, 1 or more, or None")
    settle("latent", checks.whole, 0, "the size of z, 0 for a network without")
    settle("clip", checks.pair, "give a range (low, high) with low < high, or None")
    settle("inference", checks.flag)
    settle("scale_input", checks.function, "give a function of the scales [n], or None")
    settle("label_dtype", checks.one_of, LABEL_DTYPES)
    settle("memory_format", checks.one_of, FORMATS)
    _agree(network)
    if isinstance(network.module, nn.Module):
        sound(dict(network.module.named_parameters()))


def _named(network: ScoreNetwork, kind: str, table: Any) -> None:
    """Raises ValueError where a rule is neither a name of the table nor a function."""
    value = getattr(network, kind)
    if isinstance(value, str) and value not in table:
        raise ValueError(
            f"unknown {kind} {value!r}; choose {', '.join(table)}, or give a function"
            f"{checks.nearest([value], table)}"
        )
    if not isinstance(value, (str, Velocity, type(None))):
        checks.function(kind, value, f"choose {', '.join(table)}, or give a function")


def _agree(network: ScoreNetwork) -> None:
    """Raises ValueError where what it says does not go together."""
    if isinstance(network.process, CLD) != isinstance(network.rule, Velocity):
        raise ValueError(
            f"prediction={network.prediction!r} of {type(network.process).__name__}: a network of CLD "
            f"predicts 'velocity' or 'mixed_velocity' (or a Velocity), and no other network does"
        )
    if network.variance not in (None, "learned", "learned_range"):
        raise ValueError(
            f"variance={network.variance!r}: choose 'learned', 'learned_range' or, without one, None"
        )
    if network.derivative not in (None, "heads", "exact"):
        raise ValueError(
            f"derivative={network.derivative!r}: a network offers 'heads' (k1, k2, k3), 'exact' or None"
        )
    if network.derivative and network.variance:
        raise ValueError(
            "derivative and variance are both read from channel block 1; give one of them"
        )
    if network.memory_format is torch.channels_last and len(network.shape) != 3:
        raise ValueError(
            f"channels_last needs images (channels, height, width), got {network.shape}"
        )
    null = checks.plain(network.null)
    if network.classes is not None and isinstance(null, (int, float)):
        checks.whole("null", null, 0, NULL)
        if null > network.classes:
            raise ValueError(f"null={null} of {network.classes} classes: {NULL}")


def sound(weights: Mapping[str, Tensor]) -> None:
    """Raises ValueError where a weight is not finite."""
    for name, weight in weights.items():
        if not weight.is_floating_point() or weight.is_meta:
            continue
        held = weight.float() if weight.element_size() == 1 else weight  # fp8 has no isfinite
        if not bool(torch.isfinite(held).all()):
            raise ValueError(
                f"weight {name!r} of the network holds NaN or infinity; load a sound checkpoint"
            )
