"""What the networks of emoji are told: tokens of captions, or embeddings of neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from .. import atomic
from ..choices.kept import folder
from ..networks.text import TextEncoder
from .emoji import Emoji


def encoder(card: Mapping[str, Any]) -> TextEncoder:
    """The text encoder of a card, or the usual one."""
    return TextEncoder(**(card.get("text") or {}))


def captions(found: Emoji, text: TextEncoder) -> tuple[Tensor, Tensor]:
    """The tokens of all captions [M, T, width] float16, and the places there of each picture's [N, K].

    They are kept under the user's cache folder.
    """
    listed = list(dict.fromkeys(caption for each in found.captions for caption in each))
    place = {caption: i for i, caption in enumerate(listed)}
    rows = torch.tensor([[place[caption] for caption in each] for each in found.captions])
    return kept(listed, text), rows


def kept(texts: list[str], text: TextEncoder) -> Tensor:
    """Tokens of texts, float16, from the cache folder where they are there."""
    about = "\n".join([text.origin, str(text.tokens), *texts])
    path = folder() / "contexts" / f"{hashlib.sha256(about.encode()).hexdigest()[:24]}.safetensors"
    if path.is_file():
        return safetensors.torch.load_file(path)["tokens"]
    tokens = torch.cat([part.half() for part in text.chunks(texts)])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, safetensors.torch.save({"tokens": tokens}))
    return tokens


def neighbours(found: Emoji, text: TextEncoder, k: int) -> tuple[Tensor, Tensor]:
    """Contexts [2 N, k, width]: of each picture the k nearest by its name's embedding, with itself among
    them, and without; and their places [N, 2] (Blattmann et al. 2022, section 3.2)."""
    embedded = text.embed(found.names)
    near = (embedded @ embedded.T).topk(k + 1, dim=1).indices
    itself = near == torch.arange(len(near))[:, None]
    # Stable: the picture itself goes to the end, and all others keep their order.
    without = near.gather(1, itself.int().argsort(dim=1, stable=True))[:, :k]
    tokens = torch.cat([embedded[near[:, :k]], embedded[without]])
    scale = embedded.shape[1] ** 0.5  # tokens have root mean square 1
    n = len(near)
    return scale * tokens, torch.stack([torch.arange(n), n + torch.arange(n)], dim=1)
