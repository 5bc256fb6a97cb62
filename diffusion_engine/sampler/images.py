"""Images that a user gives, as tensors of a run: x to start from, mask and known of inpainting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..networks.network import ScoreNetwork


def count(network: ScoreNetwork, x: Any, y: Any) -> int | None:
    """For how many samples a given x or a measurement y is; None where each is one for all of them."""
    of_y = None if network.measured is None else _count("measurement", y, network.measured)
    return _count("x", x, network.shape) or of_y


def _count(name: str, given: Any, one: Sequence[int]) -> int | None:
    shape = () if given is None else tuple(_tensor(name, given).shape)
    if given is None or len(shape) == len(one):
        return None
    if shape and not shape[0]:
        raise ValueError(f"{name} has shape {list(shape)} and holds no image; give 1 or more")
    return shape[0] if shape else None


def state(
    x: Any, network: ScoreNetwork, n: int, device: torch.device, dtype: torch.dtype, whole: bool
) -> Tensor:
    """A given x, [n, *shape], or all of [x, v] where that may be given: `whole`."""
    given = _floats("x", x, device, dtype)
    shape = network.shape
    if whole and tuple(given.shape[-len(shape) :]) == network.state_shape:
        shape = network.state_shape
    if given.ndim < len(shape):
        raise _unfit("x", given, n, shape)
    if not bool(given.isfinite().all()):
        raise ValueError("x holds NaN or infinity; give finite images")
    parts = _expand("x", given, n, shape).split(network.shape[0], dim=1)
    laid = [part.contiguous(memory_format=network.memory_format) for part in parts]
    return laid[0] if len(laid) == 1 else torch.cat(laid, dim=1)


def measurement(y: Any, network: ScoreNetwork, n: int, device: torch.device) -> Tensor | None:
    """A measurement, float32 or float64, [n, *measured]; one without a batch axis is that of all samples.

    Raises ValueError where the network follows none, or one of another shape.
    """
    if (y is None) != (network.measured is None):
        raise ValueError(
            "measurement= is what a driver of inverse problems follows, such as driver='dps', and this "
            "sampler has none"
            if network.measured is None
            else f"this sampler follows a measurement: give measurement= [{n}, "
            f"{', '.join(map(str, network.measured))}], or one for all samples"
        )
    if y is None or network.measured is None:
        return None
    dtype = torch.promote_types(_tensor("measurement", y).dtype, torch.float32)
    return _expand("measurement", _floats("measurement", y, device, dtype), n, network.measured)


def region(
    mask: Any, known: Any, network: ScoreNetwork, n: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """mask and known, [n, *shape] each, broadcast over samples and channels. Where all is free `known` is
    never seen: what is not finite there becomes 0, because the step multiplies it by 0."""
    free = _expand("mask", _mask(mask, device), n, network.shape)
    kept = _expand("known", _floats("known", known, device), n, network.shape)
    sound = kept.isfinite()
    if not bool((sound | (free == 1.0)).all()):
        raise ValueError(
            "known holds NaN or infinity where the mask is below 1 and samples follow it; give finite "
            "images, or free that region with a mask of 1"
        )
    kept = kept.where(sound, 0.0)
    form = network.memory_format
    return free.contiguous(memory_format=form), kept.contiguous(memory_format=form)


def _mask(given: Any, device: torch.device) -> Tensor:
    """[...] float32 from 0 to 1. Of bool, uint8 with 255 for 1 as images have it, or floats."""
    mask = _tensor("mask", given).to(device)
    levels = mask.real.float()
    if mask.dtype == torch.uint8 and bool((mask > 1).any()):
        levels = levels / 255.0
    if mask.is_complex() or not bool(((levels >= 0.0) & (levels <= 1.0)).all()):
        raise ValueError(
            f"the mask holds {mask.dtype} outside 0 to 1: give 1 where samples are free and 0 where they "
            "follow known, or bool, or uint8 images of 0 and 255"
        )
    return levels


def _floats(
    name: str, given: Any, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    images = _tensor(name, given)
    if not images.is_floating_point():
        raise ValueError(
            f"{name} holds {images.dtype}, and a network's data are floating-point: give them in its range, "
            "such as images.float() / 127.5 - 1 of uint8"
        )
    return images.to(device, dtype)


def _tensor(name: str, given: Any) -> Tensor:
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}={checks.said(given)}: give a tensor of images") from error


def _expand(name: str, given: Tensor, n: int, shape: Sequence[int]) -> Tensor:
    try:
        return given.expand(n, *shape)
    except RuntimeError as error:
        raise _unfit(name, given, n, shape) from error


def _unfit(name: str, given: Tensor, n: int, shape: Sequence[int]) -> ValueError:
    return ValueError(
        f"{name} has shape {list(given.shape)}; it has to fit [{n}, {', '.join(map(str, shape))}]"
    )
