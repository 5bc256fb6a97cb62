"""What a recipe trains on: batches of images with their conditions, and the images held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import checks
from ..zoo.cards import Card
from ..zoo.decoders import decoder_of
from . import contexts, data
from . import emoji as pictures
from .data import Augmentation, Batch
from .recipe import TrainingRecipe

CONDITIONS = ("category", "caption", "neighbours")


class Draws(Protocol):
    """Batches: `x0` [N, ...] is all that there is to draw from."""

    @property
    def x0(self) -> Tensor: ...

    def __call__(self, generator: torch.Generator) -> Batch: ...


@dataclass(frozen=True, eq=False)
class Conditioned:
    """Batches of x0, each with a condition of its own, drawn uniformly with replacement.

    x0          [N, C, H, W] float32
    conditions  [M, ...], a table
    rows        [N, K] int64: places in the table of those that each image has; [N, K, k] where a condition
                is k of the table's
    batch       images a batch
    augmentation  None leaves them as they are; of pictures in [-1, 1] on white
    """

    x0: Tensor
    conditions: Tensor
    rows: Tensor
    batch: int
    augmentation: Augmentation | None = None

    def __call__(self, generator: torch.Generator) -> Batch:
        index = torch.randint(len(self.x0), (self.batch,), generator=generator)
        column = torch.randint(self.rows.shape[1], (self.batch,), generator=generator)
        x = self.x0[index]
        if self.augmentation is not None:  # which fills with zeros: white, of a picture turned over
            x = 1.0 - 2.0 * self.augmentation(0.5 - 0.5 * x, generator)
        condition = self.conditions[self.rows[index, column]]
        return Batch(x, condition.float() if condition.is_floating_point() else condition)


@dataclass(frozen=True)
class Source:
    """Where images come from.

    draws     makes the batches of a recipe, with what is given in place of its data, and options of its own
    held_out  the images that are trained on by no recipe of the split "train", in [0, 1], and their classes
    about     what a card says of it
    """

    draws: Callable[..., Draws]
    held_out: Callable[[], tuple[Tensor, Tensor]]
    about: Mapping[str, str]


def source(recipe: TrainingRecipe) -> Source:
    """The source of a recipe's data. Raises ValueError where it is not known."""
    return SOURCES[checks.one_of("data", recipe.data.get("name"), tuple(SOURCES))]


def draws(recipe: TrainingRecipe, given: Any = None) -> Draws:
    """The batches of a recipe.

    given  in place of its data: of MNIST (images [N, C, H, W] in [0, 1], classes [N]), of emoji an Emoji

    Raises ValueError where the data cannot be had.
    """
    make = source(recipe).draws
    options = {key: value for key, value in recipe.data.items() if key != "name"}
    checks.names(f"data {recipe.data['name']!r}", options, [*signature(make).parameters][2:])
    return make(recipe, given, **options)


def held_out(recipe: TrainingRecipe) -> tuple[Tensor, Tensor] | None:
    """The images that a recipe does not train on, in [0, 1], and their classes; None where there are none."""
    return None if recipe.split == "all" else source(recipe).held_out()


def _held_out_emoji() -> tuple[Tensor, Tensor]:
    found = pictures.emoji()
    held = data.held_out(len(found.images))
    return found.images[held].float() / 255.0, found.categories[held]


def _mnist(recipe: TrainingRecipe, given: Any) -> Draws:
    images, labels = data.mnist(recipe.split) if given is None else given
    return data.Draws(images, labels, recipe.batch, recipe.augmentation, recipe.sampling)


def _emoji(recipe: TrainingRecipe, given: Any, condition: str = "category", k: int = 4) -> Draws:
    checks.one_of("condition", condition, CONDITIONS)
    if recipe.sampling != "uniform":
        raise ValueError(f"sampling={recipe.sampling!r}: pictures of emoji are drawn by 'uniform'")
    found = pictures.emoji() if given is None else given
    which = torch.ones(len(found.images), dtype=torch.bool)
    if recipe.split != "all":
        which = data.held_out(len(found.images)) == (recipe.split == "test")
    x = 2.0 * (found.images[which].float() / 255.0) - 1.0
    x = _latents(recipe, x)
    if condition == "category":
        table, rows = found.categories, torch.arange(len(which))[:, None]
    else:
        text = contexts.encoder(recipe.card)
        make: Callable[..., tuple[Tensor, Tensor]] = (
            contexts.captions if condition == "caption" else partial(contexts.neighbours, k=k)
        )
        table, rows = make(found, text)
        _check_context(recipe, (*rows.shape[2:], *table.shape[1:]))
    return Conditioned(x, table, rows[which], recipe.batch, recipe.augmentation)


def _check_context(recipe: TrainingRecipe, shape: tuple[int, ...]) -> None:
    """Raises ValueError where conditions of a shape are not what the card says."""
    if (said := Card.model_validate(recipe.card).context) != shape:
        raise ValueError(
            f"the data of {recipe.name!r} are told in tokens {list(shape)}, and its card has context={said}; "
            "write the same in both"
        )


def _latents(recipe: TrainingRecipe, images: Tensor) -> Tensor:
    """Images in [-1, 1], as latents where the card has a decoder."""
    if (said := Card.model_validate(recipe.card).decoder) is None:
        return images
    if recipe.augmentation is not None:
        raise ValueError(
            f"{recipe.name!r} learns latents, which are made once and no image to be moved: give it "
            "augmentation=None"
        )
    return replace(decoder_of(said, recipe.name), batch_size=256).encode(images)


SOURCES = {
    "mnist": Source(_mnist, lambda: data.mnist("test"), data.SOURCE),
    "emoji": Source(_emoji, _held_out_emoji, pictures.SOURCE),
}
