"""`Form`: which form of a network runs, as recipes and later processes know it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..backends.native import module as native
from ..choices import Kept, structure
from .compare import tensors
from .conv3x3 import FusedConv3x3
from .replacement import Replacement

PATTERN = r"(original|(fused|without [a-z0-9_ ]+)(, channels_last)?)(/[0-9a-f]+)?"
CHOSEN = (None, 0, 2, 4)  # of a convolution: nothing yet, oneDNN, Winograd's tile


@dataclass(frozen=True)
class Form:
    """A form of a network.

    name   of it among the candidates
    tiles  what each 3x3 convolution runs, a hexadecimal digit: 4 times its place in CHOSEN of an input that
           is contiguous, plus that of one in channels_last
    """

    name: str
    tiles: str = ""

    @classmethod
    def of(cls, name: str, replacements: Iterable[Replacement]) -> Form:
        return cls(name, "".join(map(_digit, _convolutions(replacements))))

    @classmethod
    def parsed(cls, text: str) -> Form:
        """The form of a text. Raises ValueError where it is none."""
        if not _is_form(text):
            raise ValueError(
                f"accelerate={text!r}: give True or False, or a form that a recipe names"
            )
        name, _, tiles = text.partition("/")
        return cls(name, tiles)

    def __str__(self) -> str:
        return f"{self.name}/{self.tiles}" if self.tiles else self.name

    def take(self, replacements: Iterable[Replacement]) -> None:
        """Has convolutions run what they ran in this form, where they are as many."""
        found = _convolutions(replacements)
        if len(found) == len(self.tiles):
            for convolution, digit in zip(found, self.tiles, strict=True):
                chosen = zip((False, True), divmod(int(digit, 16), 4), strict=True)
                convolution.tiles = {last: t for last, i in chosen if (t := CHOSEN[i]) is not None}


def _convolutions(replacements: Iterable[Replacement]) -> list[FusedConv3x3]:
    return [one for one in replacements if isinstance(one, FusedConv3x3)]


def _digit(convolution: FusedConv3x3) -> str:
    plain, last = (CHOSEN.index(convolution.tiles.get(last)) for last in (False, True))
    return f"{4 * plain + last:x}"


def place(device: torch.device) -> str:
    """What the kernels of a device are made for, as forms name it."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"sm{major}{minor}"
    cpu: Any = native("_cpu")
    return device.type if isinstance(cpu, str) else cpu.isa()


def named(form: Form, device: torch.device) -> str | None:
    """A form as recipes name it; None of the original, whose bits are the module's own."""
    return None if form.name == "original" else f"accelerate/{place(device)}/{form}"


def kept(module: nn.Module, given: Sequence[Any], device: torch.device) -> Kept:
    """The forms of a network that were the fastest on this machine.

    given  the arguments of a call of any number of samples
    """
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    shapes = [[list(t.shape[1:]), str(t.dtype)] for t in tensors(given)]
    return Kept("forms", [structure(module), shapes, on], _is_form)


def _is_form(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(PATTERN, value) is not None
