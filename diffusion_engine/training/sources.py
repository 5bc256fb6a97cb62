"""What a recipe trains on: batches of images with their conditions, and the images held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import checks, zoo
from ..zoo.cards import Card
from . import contexts, data
from . import emoji as pictures
from .data import Augmentation, Batch
from .recipe import TrainingRecipe

HELD_OUT = 5  # every fifth picture
CONDITIONS = ("category", "caption", "neighbours")


class Draws(Protocol):
    """Batches: `images` [N, ...] are all that there is to draw from."""

    @property
    def images(self) -> Tensor: ...

    def __call__(self, generator: torch.Generator) -> Batch: ...


@dataclass(frozen=True, eq=False)
class Conditioned:
    """Batches of x0, each with a condition of its own, drawn uniformly with replacement.

    images      [N, C, H, W] float32, x0
    conditions  [M, ...], a table
    rows        [N, K] int64: places in the table of those that each image has; [N, K, k] where a condition
                is k of the table's
    batch       images a batch
    augmentation  None leaves them as they are; of pictures in [-1, 1] on white
    """

    images: Tensor
    conditions: Tensor
    rows: Tensor
    batch: int
    augmentation: Augmentation | None = None

    def __call__(self, generator: torch.Generator) -> Batch:
        index = torch.randint(len(self.images), (self.batch,), generator=generator)
        column = torch.randint(self.rows.shape[1], (self.batch,), generator=generator)
        x = self.images[index]
        if self.augmentation is not None:  # which fills with zeros: white, of a picture turned over
            x = 1.0 - 2.0 * self.augmentation(0.5 - 0.5 * x, generator)
        condition = self.conditions[self.rows[index, column]]
        return Batch(x, condition.float() if condition.is_floating_point() else condition)


def draws(recipe: TrainingRecipe, given: Any = None) -> Draws:
    """The batches of a recipe.

    given  in place of its data: of MNIST (images [N, C, H, W] in [0, 1], classes [N]), of emoji an Emoji

    Raises ValueError where the data cannot be had.
    """
    options = dict(recipe.data)
    name = checks.one_of("data", options.pop("name", None), tuple(SOURCES))
    return SOURCES[name](recipe, given, **options)


def source(recipe: TrainingRecipe) -> dict[str, str]:
    """What a card says of the data."""
    return pictures.SOURCE if recipe.data["name"] == "emoji" else data.SOURCE


def held_out(recipe: TrainingRecipe) -> tuple[Tensor, Tensor] | None:
    """The images that a recipe does not train on, in [0, 1], and their classes; None where there are none."""
    if recipe.split == "all":
        return None
    if recipe.data["name"] == "mnist":
        return data.mnist("test")
    found = pictures.emoji()
    held = _held(len(found.images))
    return found.images[held].float() / 255.0, found.categories[held]


def _held(n: int) -> Tensor:
    return torch.arange(n) % HELD_OUT == HELD_OUT - 1


def _mnist(recipe: TrainingRecipe, given: Any) -> Draws:
    images, labels = data.mnist(recipe.split) if given is None else given
    return data.Draws(images, labels, recipe.batch, recipe.augmentation, recipe.sampling)


def _emoji(recipe: TrainingRecipe, given: Any, condition: str = "category", k: int = 4) -> Draws:
    found = pictures.emoji() if given is None else given
    checks.one_of("condition", condition, CONDITIONS)
    which = torch.ones(len(found.images), dtype=torch.bool)
    if recipe.split != "all":
        which = _held(len(found.images)) == (recipe.split == "test")
    x = 2.0 * (found.images[which].float() / 255.0) - 1.0
    x = latents(Card.model_validate(recipe.card), x)
    if condition == "category":
        table, rows = found.categories, torch.arange(len(which))[:, None]
    else:
        text = contexts.encoder(recipe.card)
        make: Callable[..., tuple[Tensor, Tensor]] = (
            contexts.captions if condition == "caption" else partial(contexts.neighbours, k=k)
        )
        table, rows = make(found, text)
    return Conditioned(x, table, rows[which], recipe.batch, recipe.augmentation)


def latents(card: Card, images: Tensor) -> Tensor:
    """Images in [-1, 1], as latents where the card has a decoder: (encode(x) - shift) scale_factor."""
    if card.decoder is None:
        return images
    name = card.decoder.name
    module, about = zoo.load(name), zoo.card(name)
    with torch.no_grad():
        z = torch.cat([module.encode(part) for part in images.split(256)])  # type: ignore[operator]
    return (z - about.shift) * (about.scale_factor or 1.0)


SOURCES: Mapping[str, Callable[..., Draws]] = {"mnist": _mnist, "emoji": _emoji}
