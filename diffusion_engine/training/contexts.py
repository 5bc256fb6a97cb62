"""What the networks of emoji are told: tokens of captions, or embeddings of neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import atomic
from ..choices.kept import folder
from ..networks.text import TextEncoder
from .emoji import Emoji

DRAWN = 8  # contexts of each picture, of every number of neighbours


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
    # What is not there, or damaged, is made again.
    with suppress(OSError, safetensors.SafetensorError, KeyError):
        return safetensors.torch.load_file(path)["tokens"]
    tokens = torch.cat([part.half() for part in text.chunks(texts)])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, safetensors.torch.save({"tokens": tokens}))
    return tokens


def neighbours(found: Emoji, text: TextEncoder, k: int) -> tuple[Tensor, Tensor]:
    """The embeddings of all captions [M + 1, width] float16, the last of which is zeros, and the places there
    of the contexts of each picture [N, K, k].

    A context is 1 to k neighbours of the picture by its name's embedding, nearest first, and zeros behind
    (Blattmann et al. 2022, section 3.2). In every other the picture itself is the first, in the others it is
    left out. A neighbour is there by its name or, as often, by another of its captions: whose words a
    database will use at sampling nobody knows.
    """
    tokens, rows = captions(found, replace(text, tokens=1))
    table = torch.cat([tokens[:, 0], tokens.new_zeros(1, tokens.shape[2])])
    near = nearest(table[rows[:, 0]].float(), k)
    draw, made = torch.Generator().manual_seed(0), []
    for i in range(DRAWN * k):
        count, own = 1 + i // 2 % k, i % 2 == 0
        chosen = near[:, :k] if own else near[:, 1:]
        column = torch.randint(rows.shape[1], chosen.shape, generator=draw)
        column *= torch.randint(2, chosen.shape, generator=draw)  # 0 is the name
        places = rows[chosen, column]
        places[:, count:] = len(table) - 1
        made.append(places)
    return table, torch.stack(made, dim=1)


def nearest(embedded: Tensor, k: int) -> Tensor:
    """Of each of N embeddings [N, width] the places of itself and then of its k neighbours [N, k + 1]."""
    alike = F.normalize(embedded, dim=1) @ F.normalize(embedded, dim=1).T
    return alike.fill_diagonal_(torch.inf).topk(k + 1, dim=1).indices
