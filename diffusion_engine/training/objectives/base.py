"""What a trainer asks of an objective."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ...networks.network import ScoreNetwork
from ...zoo.networks import load_network, network_of_card
from .. import sources
from ..data import Batch
from ..recipe import TrainingRecipe
from ..sources import Draws

Loss = Callable[[Batch, torch.Generator], Tensor]


@dataclass(frozen=True)
class Given:
    """What an objective is made of.

    recipe  whose objective it is
    module  the network that trains and ships, with fresh weights or those of the recipe's start
    device  of everything
    draw    the batches that it learns from
    own     whether it trains on images of the caller's
    """

    recipe: TrainingRecipe
    module: nn.Module
    device: torch.device
    draw: Draws | None = None
    own: bool = False

    @property
    def images(self) -> int:
        """How many there are to learn from."""
        return 0 if self.draw is None else len(self.draw.x0)

    @cached_property
    def network(self) -> ScoreNetwork:
        """The module as its card describes it."""
        return network_of_card(self.module, self.recipe.card, self.recipe.name)

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor] | None:
        """The images that the recipe does not train on, in [0, 1], and their classes; None where it trains on
        all, or on others."""
        return None if self.own else sources.held_out(self.recipe)

    @cached_property
    def teacher(self) -> ScoreNetwork:
        """The network that is learned from, frozen. Raises ValueError where the recipe names none."""
        if self.recipe.teacher is None:
            raise ValueError(f"the recipe {self.recipe.name!r} names no teacher; say which network")
        made = load_network(self.recipe.teacher, self.device)
        if isinstance(made.module, nn.Module):
            made.module.eval().requires_grad_(False)
            made.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return made


def adamw(parameters: list[nn.Parameter], recipe: TrainingRecipe) -> torch.optim.Optimizer:
    """AdamW with the recipe's betas and decay."""
    return torch.optim.AdamW(
        parameters, lr=0.0, betas=recipe.betas, weight_decay=recipe.weight_decay
    )


def adam(parameters: list[nn.Parameter], recipe: TrainingRecipe) -> torch.optim.Optimizer:
    """Adam, which decays no weights."""
    return torch.optim.Adam(parameters, lr=0.0, betas=recipe.betas)


@dataclass(frozen=True)
class Turn:
    """A part of a step: one optimizer follows the gradient of one loss.

    name        of the loss in the log
    parameters  that it moves
    loss        of a batch, a scalar that can be differentiated; one that cannot has left its gradient in
                the parameters
    lr          its learning rate as a share of the recipe's
    optimizer   made of the parameters and the recipe
    """

    name: str
    parameters: Iterable[nn.Parameter]
    loss: Loss
    lr: float = 1.0
    optimizer: Callable[[list[nn.Parameter], TrainingRecipe], torch.optim.Optimizer] = adamw


class Objective:
    """A training: its networks, and what each step does.

    given    what it is made of
    loss     a function loss(network, batch, generator, **options)
    options  of that function

    This one has one network and one loss. Others replace `turns`, and what else they need.
    """

    def __init__(self, given: Given, loss: Callable[..., Tensor], **options: Any) -> None:
        self.given = given
        self.loss, self.options = loss, options

    def turns(self) -> list[Turn]:
        """In the order in which a step takes them."""
        network = self.given.network
        return [
            Turn(
                "loss",
                self.given.module.parameters(),
                lambda batch, generator: self.loss(network, batch, generator, **self.options),
            )
        ]

    def modules(self) -> dict[str, nn.Module]:
        """All that has a state a checkpoint must keep, beside the module and its average."""
        return {}

    def before(self, step: int, average: nn.Module) -> None:
        """Called before each step, e.g. to begin another round.

        step     0, 1, ...
        average  the averaged module
        """

    def after(self, steps: int, average: nn.Module) -> dict[str, Any]:
        """What the card says beside the recipe after that many steps, of `average`, the averaged module."""
        return {}
