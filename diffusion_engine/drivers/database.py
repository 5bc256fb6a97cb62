"""Prompts to a network that reads neighbours: the nearest of a list of names are its condition.

The names are the database of retrieval-augmented diffusion (Blattmann et al. 2022), embedded as texts. They
are exchanged at sampling time, and the same weights draw other things of the same prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..networks.network import ScoreNetwork
from ..networks.text import TextEncoder
from .index import Index
from .retrieval import Retrieval

KEPT = 4  # databases whose names stay embedded
NAMES = "give the texts that neighbours are looked for among, such as ['cat', 'dog', 'red fox', 'horse']"


@dataclass(frozen=True)
class Database:
    """Makes the condition [n, k, width] of n prompts: the embeddings of the k names nearest to each, nearest
    first, each token scaled to root mean square 1. The prompt itself is none of the tokens.

    names    k different texts or more
    k        neighbours of a prompt
    encoder  of names and prompts

    It stands where a network has its text encoder, see `with_database`, so that recipes hold the prompts, and
    know the database by its `origin`. Nothing is embedded before the first prompt, and a prompt has the same
    neighbours alone and among others.

    Raises ValueError where names are none, too few or there twice; at the first prompt ImportError without
    faiss, or without the encoder's package.
    """

    names: tuple[str, ...]
    k: int = 4
    encoder: TextEncoder = field(default_factory=TextEncoder)

    def __post_init__(self) -> None:
        listed = checks.entries("names", self.names, NAMES)
        names = tuple(checks.prompt(f"names[{i}]", name) for i, name in enumerate(listed))
        object.__setattr__(self, "names", names)
        checks.settle(self, "k", checks.whole, 1, "the neighbours of a prompt, 1 or more")
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise ValueError(f"names has {checks.said(twice)} twice; leave one of them out")
        if len(names) < self.k:
            raise ValueError(
                f"a prompt has k={self.k} neighbours and the database {len(names)} names; give {self.k} or "
                "more"
            )

    @property
    def width(self) -> int:
        """Numbers in a token."""
        return self.encoder.width

    @property
    def origin(self) -> str:
        """What recipes call it: the SHA-256 of the names, of k and of the encoder. It is the same on every
        machine, which the last bits of embeddings are not."""
        about = json.dumps([self.encoder.origin, self.k, *self.names])
        return f"names/{hashlib.sha256(about.encode()).hexdigest()[:16]}"

    @property
    def retrieval(self) -> Retrieval:
        """What finds the neighbours. Raises ImportError."""
        return _retrieval(self)

    def __call__(self, prompts: str | Sequence[str]) -> Tensor:
        """The condition of prompts, float32. Raises as the encoder does, and ImportError without faiss."""
        return self.retrieval.condition(prompts)[""]

    def nearest(self, prompts: str | Sequence[str]) -> list[list[str]]:
        """The k names nearest to each prompt, nearest first. Raises as a call does."""
        found = self.retrieval.index.neighbours(self.encoder.embed(prompts), self.k).indices
        return [[self.names[i] for i in row] for row in found.tolist()]


@lru_cache(KEPT)
def _retrieval(database: Database) -> Retrieval:
    encoder = database.encoder
    # The first token is the sentence's embedding but for its length.
    made = [part[:, 0] for part in replace(encoder, tokens=1).chunks(database.names)]
    settled = partial(Retrieval, own=False, name="", scale=encoder.width**0.5, zeros=True)
    return settled(Index(torch.cat(made)), encoder.embed, database.k)


def reads_neighbours(network: ScoreNetwork) -> bool:
    """Whether a network's condition is tokens [k, width] that no text encoder of its own makes."""
    null = network.null
    tokens = isinstance(null, Tensor) and null.ndim == 2 and null.is_floating_point()
    return tokens and isinstance(network.text, Database | None)


def with_database(
    network: ScoreNetwork, names: Sequence[str], encoder: TextEncoder | None = None
) -> ScoreNetwork:
    """The same network, told of each prompt what its nearest neighbours among names are.

    network  reads embeddings of neighbours, as "emoji_retrieval" of the zoo does, and has no other text
    names    the database, at least as many as the network reads
    encoder  that the network was trained with; None is the usual one

    Raises ValueError where the network reads none, or embeddings of another width, and as Database does.
    """
    if network.text is not None and not isinstance(network.text, Database):
        raise ValueError(
            f"the network {network.name!r} reads prompts themselves; leave the database out, or take a "
            "network that was trained with neighbours, such as 'emoji_retrieval'"
        )
    if not reads_neighbours(network):
        raise ValueError(
            f"the network {network.name!r} reads no neighbours; take one that was trained with them, such as "
            "'emoji_retrieval'"
        )
    null = network.null
    assert isinstance(null, Tensor)
    given: Any = {} if encoder is None else {"encoder": encoder}
    made = Database(names, len(null), **given)  # type: ignore[arg-type]
    if made.width != null.shape[1]:
        raise ValueError(
            f"the names' embeddings are {made.width} wide and the tokens of {network.name!r} "
            f"{null.shape[1]}; give the encoder that it was trained with"
        )
    return network.with_module(network.module, text=made)
