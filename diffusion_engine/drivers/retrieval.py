"""Retrieval-augmented diffusion (Blattmann et al. 2022, section 3): neighbours are a network's condition.

A database of embeddings E and a query q give the context of the network's cross-attention,

    c = [q, n_1, ..., n_k],     n_1 ... n_k the k nearest of E to q

in place of what a larger network would have learned by heart, and so another database makes other samples of
the same weights. The context of the unconditional branch is zeros of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import checks
from .index import Index

SCALE = "tokens are embeddings times it; give a number other than 0"
COUNT = "a whole number of neighbours, 0 or more, or one such number a query"


class Retrieved(dict[str, Tensor]):
    """A condition of n samples.

    tensors  [n, ...] by the names that a network takes them by
    origin   what they were made of; a recipe says so, and is replayed with no other
    """

    def __init__(self, tensors: dict[str, Tensor], origin: str) -> None:
        super().__init__(tensors)
        self.origin = origin

    def __reduce__(self) -> tuple:
        return type(self), (dict(self), self.origin)


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Conditions of queries, for `sample(condition=retrieval.condition(queries))` and an engine's `submit`.

    index   where neighbours are looked for; `swap` gives another in its place
    embed   makes embeddings [n, d] of queries, as the index's were made; None where queries are embeddings
    k       neighbours of a query, 0 or more
    own     the query's own embedding is the first token
    name    of the tokens [n, own + k, d] in the network's call; "" gives them without a name
    mask    of a mask [n, own + k], True where a token is one, for queries of fewer neighbours; None: no mask
    width   of the tokens that the network takes; None is the index's
    scale   of the tokens: width**0.5 makes embeddings of length 1 into tokens of root mean square 1
    zeros   a token of zeros is none to the network, whose keys and values have no bias: queries of fewer
            neighbours need no mask

    Raises ValueError where the index has another width, or there would be no tokens.
    """

    index: Index
    embed: Callable[[Any], Any] | None = None
    k: int = 10
    own: bool = True
    name: str = "context"
    mask: str | None = None
    width: int | None = None
    scale: float = 1.0
    zeros: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.index, Index):
            raise ValueError(f"index={checks.said(self.index)}: give an Index of embeddings")
        checks.settle(self, "embed", checks.function, "give a function of queries, or None")
        checks.settle(self, "k", checks.whole, 0, COUNT)
        checks.settle(self, "own", checks.flag)
        checks.settle(self, "zeros", checks.flag)
        checks.settle(self, "scale", checks.number, SCALE)
        if self.scale == 0.0:
            raise ValueError(f"scale=0: {SCALE}")
        for field in ("name", "mask"):
            if not isinstance(getattr(self, field), str | None) or self.name is None:
                raise ValueError(f"{field}={checks.said(getattr(self, field))}: give a keyword")
        if self.width is None:
            object.__setattr__(self, "width", self.index.width)
        checks.settle(self, "width", checks.whole, 1, "tokens are 1 or more wide")
        if not self.tokens:
            raise ValueError("k=0 and own=False leave no token; give one of them")
        if self.index.width != self.width:
            raise ValueError(
                f"the index's embeddings are {self.index.width} wide and the network's tokens {self.width}; "
                "give an index of embeddings that the network was trained with"
            )
        if self.k > len(self.index):
            raise ValueError(f"k={self.k} of an index of {len(self.index)}; give a smaller k")

    @property
    def tokens(self) -> int:
        """How many a context has, padding among them."""
        return self.own + self.k

    @property
    def origin(self) -> str:
        """What a recipe calls the index."""
        return f"retrieval/{self.index.digest}"

    def swap(self, index: Index) -> Retrieval:
        """The same of another index, for the requests to come."""
        return replace(self, index=index)

    def null(self) -> dict[str, Tensor]:
        """One sample of the unconditional context, zeros that are attended to: ScoreNetwork(null=...)."""
        made = {self.name: torch.zeros(self.tokens, self.width or 0)}
        return made | ({self.mask: torch.ones(self.tokens, dtype=torch.bool)} if self.mask else {})

    def condition(self, queries: Any, k: Any = None) -> Retrieved:
        """The condition of n samples, one a query.

        queries  what `embed` takes n of, or embeddings [n, d]
        k        neighbours of each query, at most the object's own, for which the rest is padded with zeros
        Raises ValueError on another width, and where fewer neighbours are asked for than can be said.
        """
        embedded = self.index.vectors(queries if self.embed is None else self.embed(queries))
        counts = [self.k] * len(embedded) if k is None else self._counts(k, len(embedded))
        tokens = embedded[:, None] if self.own else embedded[:, None][:, :0]
        if self.k:
            tokens = torch.cat([tokens, self.index.neighbours(embedded, self.k).embeddings], dim=1)
        there = torch.arange(self.tokens) < torch.tensor(counts)[:, None] + self.own
        tokens = self.scale * tokens * there[..., None]
        return Retrieved(
            {self.name: tokens} | ({self.mask: there} if self.mask else {}), self.origin
        )

    def _counts(self, k: Any, n: int) -> list[int]:
        """Neighbours of each of n queries."""
        k = checks.plain(k)
        listed = [k] * n if isinstance(k, int) else checks.entries("k", k, COUNT)
        counts = [checks.whole(f"k[{i}]", count, 0, COUNT) for i, count in enumerate(listed)]
        if len(counts) != n:
            raise ValueError(
                f"k has {len(counts)} entries for {n} queries; give one number, or one a query"
            )
        if max(counts, default=0) > self.k:
            raise ValueError(
                f"k={max(counts)} and a context has room for k={self.k}; give that at most"
            )
        if min(counts, default=self.k) < self.k and self.mask is None and not self.zeros:
            raise ValueError(
                "fewer neighbours are padded, and the network would take zeros for some; give mask=, the "
                "keyword of its mask, or zeros=True where a token of zeros is none to it"
            )
        if not self.own and 0 in counts:
            raise ValueError("k=0 leaves a query no token; give 1 or more, or own=True")
        return counts
