"""The figures of a set of samples, with their spreads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .features import Described
from .manifolds import precision_recall
from .reference import Reference

Z = 1.96  # of 95 % of a normal law


@dataclass(frozen=True)
class Estimate:
    """A figure and the standard deviation that another set of as many samples would give it."""

    value: float
    spread: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, of a normal law: value - 1.96 spread to value + 1.96 spread."""
        return self.value - Z * self.spread, self.value + Z * self.spread

    @classmethod
    def share(cls, hits: Tensor) -> Estimate:
        """The share of a set's members for which something holds."""
        p = float(hits.double().mean())
        return cls(p, math.sqrt(p * (1.0 - p) / len(hits)))

    @classmethod
    def over(cls, values: Sequence[float]) -> Estimate:
        """The mean over several sets, and the standard error of it."""
        made = torch.tensor(list(values), dtype=torch.float64)
        return cls(float(made.mean()), float(made.std()) / math.sqrt(len(made)))

    def apart(self, other: Estimate) -> float:
        """How many standard deviations of their difference self lies below the other, of sets drawn apart."""
        return (other.value - self.value) / max(math.hypot(self.spread, other.spread), 1e-300)


@dataclass(frozen=True)
class Quality:
    """Figures of one set of samples.

    count      of samples
    frechet    distance from the reference's law in features; its spread by bootstrap
    precision  the share of samples within the reference's manifold
    recall     the share of the reference within the samples' manifold
    accuracy   the share that the classifier takes for the digit that was asked; None where none was
    """

    count: int
    frechet: Estimate
    precision: Estimate
    recall: Estimate
    accuracy: Estimate | None = None


def quality(
    samples: Described,
    reference: Reference,
    asked: Sequence[int] | None = None,
    *,
    resamples: int = 200,
) -> Quality:
    """The figures of samples.

    Args:
        samples: what `describe` made of them.
        reference: what they are held against.
        asked: the digit of each; None where none was asked for.
        resamples: of the bootstrap, 2 or more.

    Raises:
        ValueError: too few samples for a covariance of their features, or digits of another number.
    """
    features, digits = samples.features, None
    if asked is not None:
        if len(asked) != len(features):
            raise ValueError(f"{len(asked)} digits for {len(features)} samples: give one for each")
        digits = torch.as_tensor(list(asked))
    distance = reference.distance()
    frechet = Estimate(distance(features), distance.spread(features, digits, resamples))
    # Manifolds of sets of one size: larger ones have smaller balls.
    few = min(len(features), len(reference.features))
    inside, covered = precision_recall(reference.features[:few], features[:few])
    return Quality(
        len(features),
        frechet,
        Estimate.share(inside),
        Estimate.share(covered),
        None if digits is None else Estimate.share(samples.classes == digits),
    )
