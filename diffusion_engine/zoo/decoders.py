"""An autoencoder of the zoo as the Decoder of networks that sample its latents."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..networks.decoder import Decoder
from .cards import Autoencoder, card, weights
from .weights import load

KEPT = 4  # autoencoders: networks of one share its module


class Part(nn.Module):
    """A method of a module as a module of its own, over the same weights."""

    def __init__(self, whole: nn.Module, method: str) -> None:
        super().__init__()
        self.whole, self.method = whole, method

    def forward(self, given: torch.Tensor) -> Any:
        return getattr(self.whole, self.method)(given)


def decoder_of(said: Autoencoder, name: str, device: str | torch.device = "cpu") -> Decoder:
    """The decoder of a network, as its card says it.

    Args:
        said: the autoencoder; a file's name is one beside the network's own.
        name: the network's, for errors.
        device: of the autoencoder's weights.

    Raises:
        ValueError: the autoencoder is unknown or damaged, or not the one that the network was trained with.
    """
    below = said.name
    if below.endswith(".safetensors"):
        below = str(Path(name).parent / below)
    known = card(below)
    if known.scale_factor is None:
        raise ValueError(f"the decoder {below!r} of the network {name!r} is no autoencoder")
    for field in ("sha256", "scale_factor"):
        own, wanted = getattr(known, field), getattr(said, field)
        if wanted is not None and own != wanted:
            raise ValueError(
                f"the network {name!r} was trained on latents of an autoencoder with {field}={wanted}, and "
                f"{below!r} has {field}={own}: give that autoencoder, or train the network again"
            )
    whole = _module(below, known.sha256, weights(below).stat().st_mtime_ns, str(device))
    decode, encode, preview = (Part(whole, method) for method in ("decode", "encode", "preview"))
    return Decoder(
        decode, known.scale_factor, known.shift, channels=whole.preview.in_channels,
        encoder=encode, preview=preview,
    )  # fmt: skip


@lru_cache(KEPT)
def _module(name: str, digest: str | None, written: int, device: str) -> Any:
    """An autoencoder's module. Its checksum and the time it was written are part of what it is known by."""
    return load(name).to(torch.device(device))
