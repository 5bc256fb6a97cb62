"""Neighbours among embeddings: faiss finds candidates, float64 orders them.

An exact index is `IndexFlat`, an approximate one the graph of Malkov & Yashunin 2018 (HNSW). faiss rounds
sums in another order for many queries than for one, so its candidates are measured again, in float64 and one
sum a pair. A query has the same neighbours alone and among others, and of two as near the first in the index.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from .. import checks

Array = np.ndarray

FORMAT = "diffusion-engine-index/1"
KINDS, METRICS = ("exact", "approximate"), ("inner_product", "l2")
SPARE = 16  # candidates beyond those that are asked for
UNIT = 2.0**-22  # what the length of a float32 vector of length 1 may lack
PAIRS = 1 << 22  # numbers of candidates that are measured at once
ADDED = 100  # to a graph at once: faiss takes several threads for more, whose order varies
EMBEDDINGS = "embeddings are numbers [m, d], m of them and each d wide"


class Neighbours(NamedTuple):
    """The k neighbours of each of n queries, nearest first.

    embeddings    [n, k, d] float32, as the index holds them
    indices       [n, k] int64, their rows in the index
    similarities  [n, k] float64: the inner product, or minus the squared distance
    """

    embeddings: Tensor
    indices: Tensor
    similarities: Tensor


@dataclass(frozen=True, eq=False)
class Index:
    """An index of embeddings, which stays as it is: another database is another index.

    embeddings  [m, d], of torch or numpy; kept in float32 on the CPU
    kind        "exact", or "approximate": a graph that finds most of the neighbours in less time
    metric      "inner_product", the greatest, or "l2", the least distance
    normalise   embeddings and queries are divided by their length, so that both metrics find the same
    links, build, search  M, efConstruction and efSearch of the graph (Malkov & Yashunin 2018)

    Raises ValueError where embeddings are no finite numbers [m, d], or one to normalise is 0, and
    ImportError without faiss.
    """

    embeddings: Tensor
    kind: str = "exact"
    metric: str = "inner_product"
    normalise: bool = True
    links: int = 32
    build: int = 200
    search: int = 64

    def __post_init__(self) -> None:
        checks.one_of("kind", self.kind, KINDS)
        checks.one_of("metric", self.metric, METRICS)
        checks.settle(self, "normalise", checks.flag)
        for name, least in (("links", 2), ("build", 1), ("search", 1)):
            checks.settle(self, name, checks.whole, least, f"give a whole number, {least} or more")
        embeddings = self._vectors("embeddings", self.embeddings)
        if not len(embeddings):
            raise ValueError(f"embeddings has none: {EMBEDDINGS}")
        object.__setattr__(self, "embeddings", torch.from_numpy(embeddings))
        _ = self._searched

    def __len__(self) -> int:
        return len(self.embeddings)

    def __reduce__(self) -> tuple:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @property
    def width(self) -> int:
        """d of the embeddings."""
        return self.embeddings.shape[1]

    @cached_property
    def digest(self) -> str:
        """Of the embeddings and of how they are searched, by which recipes know the index."""
        made = hashlib.sha256(
            json.dumps(self._how() | {"size": list(self.embeddings.shape)}).encode()
        )
        made.update(self.embeddings.numpy().tobytes())
        return made.hexdigest()[:16]

    def vectors(self, queries: Any) -> Tensor:
        """Queries [n, d] as the index compares them: float32, of length 1 where it normalises.

        Raises ValueError where they are no finite numbers of the index's width.
        """
        made = self._vectors("queries", queries)
        if made.shape[1] != self.width:
            raise ValueError(
                f"queries are {made.shape[1]} wide and the index's embeddings {self.width}; embed both by "
                "the same function"
            )
        return torch.from_numpy(made)

    def neighbours(self, queries: Any, k: int) -> Neighbours:
        """The k nearest embeddings of each query.

        queries  [n, d], of torch or numpy
        k        1 to the size of the index
        Raises ValueError on another width, a k beyond the index, and where a graph finds fewer.
        """
        given = self.vectors(queries).numpy()
        k = checks.whole("k", k, 1, "ask for 1 neighbour or more")
        if k > len(self):
            raise ValueError(
                f"k={k} of an index of {len(self)} embeddings; ask for {len(self)} at most"
            )
        size = max(1, PAIRS // ((k + SPARE) * self.width))
        parts = [self._found(given[low : low + size], k) for low in range(0, len(given), size)]
        if not parts:
            parts = [(np.empty((0, k), np.int64), np.empty((0, k)))]
        indices, similarities = (
            torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True)
        )
        return Neighbours(self.embeddings[indices], indices, similarities)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a .safetensors file of that path: the embeddings, and the rest as JSON in its header."""
        about = {"format": FORMAT, "digest": self.digest, **self._how()}
        save_file({"embeddings": self.embeddings}, os.fspath(path), {"index": json.dumps(about)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """The index that `save` wrote to that path, built anew; ValueError where it is none, or damaged."""
        if not Path(path).is_file():
            raise ValueError(f"{path} does not exist; write an index with save()")
        try:
            with safetensors.safe_open(os.fspath(path), "pt") as file:
                about = json.loads(file.metadata()["index"])
                embeddings = file.get_tensor("embeddings")
            if about.pop("format") != FORMAT:
                raise ValueError("of another format")
            digest = about.pop("digest")
            made = cls(embeddings, **about)
        except ImportError:
            raise
        except Exception as error:  # the reader of safetensors raises types of its own
            raise ValueError(
                f"{path} is no saved index ({error}); write one with save()"
            ) from error
        if made.digest != digest:
            raise ValueError(
                f"{path} is damaged: its embeddings are not those that were saved; save it again"
            )
        return made

    def _how(self) -> dict[str, Any]:
        """How it is searched, as JSON holds it."""
        names = [field.name for field in fields(self) if field.name != "embeddings"]
        if self.kind == "exact":
            names = names[:3]
        return {name: getattr(self, name) for name in names}

    def _vectors(self, name: str, given: Any) -> Array:
        """Vectors [n, d] as float32, of length 1 where they are normalised."""
        if isinstance(given, np.ndarray):
            given = np.ascontiguousarray(given)
        try:
            array = torch.as_tensor(given).detach().cpu().double().numpy()
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{name}={checks.said(given)}: {EMBEDDINGS}") from None
        if array.ndim != 2 or not array.shape[1]:
            raise ValueError(f"{name} has the shape {list(array.shape)}: {EMBEDDINGS}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity: {EMBEDDINGS}")
        if self.normalise:
            length = np.sqrt((array * array).sum(-1, keepdims=True))
            if not length.all():
                raise ValueError(
                    f"{name}[{int(length.argmin())}] is 0 and has no direction; drop it, or say "
                    "normalise=False"
                )
            # What was normalised stays as it is, so that a saved index is the same one.
            array = np.where(abs(length - 1.0) <= UNIT, array, array / length)
        return array.astype(np.float32)

    @cached_property
    def _searched(self) -> Any:
        """faiss's own index."""
        faiss, width = _faiss(), self.width
        metric = faiss.METRIC_INNER_PRODUCT if self.metric == "inner_product" else faiss.METRIC_L2
        embeddings = self.embeddings.numpy()
        if self.kind == "exact":
            made = faiss.IndexFlat(width, metric)
            made.add(embeddings)
            return made
        made = faiss.IndexHNSWFlat(width, self.links, metric)
        made.hnsw.efConstruction, made.hnsw.efSearch = self.build, self.search
        for low in range(0, len(embeddings), ADDED):
            made.add(embeddings[low : low + ADDED])
        return made

    @cached_property
    def _longest(self) -> float:
        """Of the embeddings' lengths."""
        return float(self.embeddings.double().norm(dim=1).max())

    def _found(self, queries: Array, k: int) -> tuple[Array, Array]:
        """Indices and similarities [n, k] of queries, nearest first."""
        indices, similarities = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
        open_, asked = np.arange(len(queries)), k + SPARE
        while len(open_):
            asked = min(asked, len(self))
            found, measured = self._measured(queries[open_], asked, k)
            indices[open_], similarities[open_] = found[:, :k], measured[:, :k]
            if self.kind == "approximate" or asked == len(self):
                break
            # One that faiss left out may be as near as the last by what float32 rounds.
            last, least = measured[:, k - 1], measured[:, -1]
            open_ = open_[last - least <= self._rounding(queries[open_])]
            asked *= 2
        return indices, similarities

    def _measured(self, queries: Array, asked: int, k: int) -> tuple[Array, Array]:
        """faiss's candidates and their similarities, in order."""
        _, found = self._searched.search(queries, asked)
        if (absent := (found < 0).sum(-1)).any() and asked - absent.max() < k:
            raise ValueError(
                f"the graph found {asked - absent.max()} of k={k} neighbours; give the index a greater "
                "search= or links=, or take kind='exact'"
            )
        vectors, given = (
            self.embeddings.numpy()[found].astype(np.float64),
            queries.astype(np.float64),
        )
        if self.metric == "inner_product":
            measured = (vectors * given[:, None]).sum(-1)
        else:
            measured = -np.square(vectors - given[:, None]).sum(-1)
        measured[found < 0] = -np.inf
        order = np.lexsort((found, -measured), axis=-1)
        return np.take_along_axis(found, order, -1), np.take_along_axis(measured, order, -1)

    def _rounding(self, queries: Array) -> Array:
        """Twice what float32 may have rounded of a similarity to each query."""
        length = np.sqrt(np.square(queries.astype(np.float64)).sum(-1))
        size = length * self._longest
        if self.metric == "l2":  # |q|^2 + |x|^2 - 2 q x
            size = (length + self._longest) ** 2
        return 2.0 * (self.width + 4) * 2.0**-24 * size


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ImportError(
            "an index of neighbours stands on faiss, which is not installed: "
            "pip install 'diffusion-engine[retrieval]'"
        ) from None
    return faiss
