"""What a classifier sees in images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..zoo import card, load
from ..zoo.features import ClassifierFeatures

WEIGHTS = Path(__file__).parent / "digits_features.safetensors"
SHAPE = (1, 32, 32)
BATCH = 250


@dataclass(frozen=True, eq=False)
class Described:
    """Features [n, d] and the most likely classes [n] of n images, on the CPU."""

    features: Tensor
    classes: Tensor


@cache
def classifier(of: str | Path = WEIGHTS) -> ClassifierFeatures:
    """The shipped one of a name or a path; nobody changes it."""
    made = load(of)
    assert isinstance(made, ClassifierFeatures)
    return made.requires_grad_(False)


def levels(images: Tensor) -> Tensor:
    """uint8 of images in [-1, 1], as a file keeps them: what lies beyond is cut."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8)


def describe(images: Tensor, of: str | Path = WEIGHTS) -> Described:
    """What a shipped classifier sees in images.

    Args:
        images: [n, *shape] in [-1, 1], or uint8, of the shape that the classifier's card says. Samples are
            rounded to 256 levels first, as those of a file are.
        of: the classifier's name or path; without it that of the digits.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    known = card(of)
    if images.ndim != 4 or tuple(images.shape[1:]) != known.shape:
        what = "digits" if of == WEIGHTS else Path(of).stem
        raise ValueError(
            f"images of the shape {list(images.shape)}: the classifier knows {what} of the shape "
            f"{[len(images), *known.shape]}; evaluate a network of these"
        )
    images = images.detach().cpu()
    if wrong := int((~images.isfinite()).flatten(1).any(dim=1).sum()):
        raise ValueError(
            f"{wrong} of {len(images)} samples are not finite, and have no features; take more steps, "
            "another solver, or less guidance"
        )
    pixels = images if images.dtype == torch.uint8 else levels(images)
    network, features = classifier(of), []
    with torch.no_grad():
        for part in pixels.split(BATCH):
            features.append(network.features(part.float() / 127.5 - 1.0))
        every = torch.cat(features)
        classes = network.head(every.relu()).argmax(dim=1)
    return Described(every, classes)
