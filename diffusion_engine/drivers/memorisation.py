"""How near samples come to the data that a network was trained with, or retrieves from.

d_1 <= d_2 <= ... are the distances of a sample's embedding to the nearest of the database. A copy has a small
d_1 beside d_2, wherever the data lie dense: a sample with d_1 / d_2 < 1/3 counts as memorised in Yoon et al.
2023 (section 3). Distances of held-out data say what a sample that is no copy has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .. import checks
from .index import Index

QUANTILES = (0.0, 0.01, 0.05, 0.5, 0.95)
RATIO = 1.0 / 3.0
SHARE = 0.05  # of held-out data that lies below the threshold, where none is given
TINY = 1e-300  # in place of a second distance of 0
NEAREST = 3  # samples that the text names


@dataclass(frozen=True, eq=False)
class Distances:
    """Of n embeddings to their k nearest in a database.

    distances  [n, k] float64, rising
    indices    [n, k] int64, whose they are
    """

    distances: Tensor
    indices: Tensor

    @property
    def nearest(self) -> Tensor:
        """d_1, [n]."""
        return self.distances[:, 0]

    @property
    def ratio(self) -> Tensor:
        """d_1 / d_2, [n]; 0 for an exact copy, also of data that is there twice."""
        return self.distances[:, 0] / self.distances[:, 1].clamp_min(TINY)


@dataclass(frozen=True, eq=False)
class Memorisation:
    """What `memorisation` found; printed it is a report.

    samples    distances of the samples
    held_out   of data that the database does not have, or None
    threshold  of d_1; None without held-out data where none was given
    ratio      of d_1 / d_2, below which a sample counts as memorised
    size, width  of the database
    """

    samples: Distances
    held_out: Distances | None
    threshold: float | None
    ratio: float
    size: int
    width: int

    def memorised(self) -> Tensor:
        """Which samples have d_1 / d_2 below the ratio, [n] bool."""
        return self.samples.ratio < self.ratio

    def to_dict(self) -> dict[str, Any]:
        """Of samples and held-out data the quantiles of d_1 and d_1 / d_2, and the shares that lie below; for
        JSON."""
        parts = {"samples": self.samples, "held_out": self.held_out}
        return {
            "size": self.size, "width": self.width, "threshold": self.threshold, "ratio": self.ratio,
            **{name: part and self._said(part) for name, part in parts.items()},
        }  # fmt: skip

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1)

    def __str__(self) -> str:
        made = self.to_dict()
        lines = [
            f"{made['samples']['n']} samples beside {self.size} embeddings of width {self.width}",
            " " * 21 + "".join(f"{_quantile(q):>9}" for q in QUANTILES),
        ]
        listed = [(name, made[name]) for name in ("samples", "held_out") if made[name]]
        for what, key in (("d1", "distance"), ("d1 / d2", "ratio")):
            lines += [
                f"{what:<9}{name.replace('_', '-'):<12}"
                + "".join(f"{v:>9.4g}" for v in part[key].values())
                for name, part in listed
            ]
        for what, least, key in (
            ("d1", self.threshold, "below_threshold"), ("d1 / d2", self.ratio, "below_ratio"),
        ):  # fmt: skip
            if least is not None:
                shares = ", ".join(
                    f"{part[key]:.1%} of {n.replace('_', '-')}" for n, part in listed
                )
                lines.append(f"{what} below {least:.4g}: {shares}")
        order = self.samples.ratio.argsort(stable=True)[:NEAREST].tolist()
        named = [
            f"sample {i} to {int(self.samples.indices[i, 0])} ({float(self.samples.ratio[i]):.3g})"
            for i in order
        ]
        return "\n".join([*lines, f"nearest by d1 / d2: {', '.join(named)}"])

    def _said(self, part: Distances) -> dict[str, Any]:
        below = None if self.threshold is None else _share(part.nearest < self.threshold)
        return {
            "n": len(part.nearest),
            "distance": _quantiles(part.nearest),
            "ratio": _quantiles(part.ratio),
            "below_threshold": below,
            "below_ratio": _share(part.ratio < self.ratio),
        }


def memorisation(
    samples: Any,
    index: Index,
    embed: Callable[[Any], Any] | None = None,
    k: int = 2,
    held_out: Any = None,
    threshold: float | None = None,
    ratio: float = RATIO,
) -> Memorisation:
    """The distances of samples to their neighbours in a database, beside those of held-out data.

    samples    what `embed` takes, or embeddings [n, d]
    index      of the database; exact, as an approximate one may miss the very copy
    embed      makes embeddings [n, d], as the index's were made
    k          neighbours that are kept, 2 or more
    held_out   data of the same law that the index does not have, as `samples`
    threshold  of the distance, in units of the embeddings; None is that below which a share of 0.05 of the
               held-out data lies
    ratio      of the nearest and the second nearest distance

    Raises ValueError where the index finds no distances, or something is empty or of another width.
    """
    if index.metric != "l2" and not index.normalise:
        raise ValueError(
            "the greatest inner product of vectors of different lengths is not the least distance; make the "
            "index with metric='l2' or normalise=True"
        )
    k = checks.whole("k", k, 2, "the ratio takes 2 neighbours or more")
    ratio = checks.number("ratio", ratio)
    found = _distances("samples", samples, index, embed, k)
    others = None if held_out is None else _distances("held_out", held_out, index, embed, k)
    if threshold is not None:
        threshold = checks.number("threshold", threshold)
    elif others is not None:
        threshold = float(others.nearest.quantile(SHARE))
    return Memorisation(found, others, threshold, ratio, len(index), index.width)


def _distances(
    name: str, given: Any, index: Index, embed: Callable[[Any], Any] | None, k: int
) -> Distances:
    queries = index.vectors(given if embed is None else embed(given))
    if not len(queries):
        raise ValueError(f"{name} is empty; give 1 or more")
    found = index.neighbours(queries, k)
    # Of differences: 2 - 2 q x has no digits left where q is nearly x.
    apart = (found.embeddings.double() - queries[:, None].double()).square().sum(-1).sqrt()
    order = apart.argsort(dim=1, stable=True)
    return Distances(apart.gather(1, order), found.indices.gather(1, order))


def _quantile(q: float) -> str:
    return {0.0: "least", 0.5: "median"}.get(q, f"{q:.0%}")


def _quantiles(values: Tensor) -> dict[str, float]:
    return {_quantile(q): float(values.quantile(q)) for q in QUANTILES}


def _share(which: Tensor) -> float:
    return float(which.double().mean())
