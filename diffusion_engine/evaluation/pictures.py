"""How well samples show what was asked for: among the pictures that their network was trained on.

All is measured in the features of a classifier of their categories, whitened by the pictures' own covariance
and divided by their length: distances lie between 0 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import checks
from ..drivers.index import Index
from ..drivers.memorisation import SHARE, Memorisation, memorisation
from .features import Described, describe
from .quality import Estimate

CLASSIFIER = "emoji_categories"
NEAR = 5  # a picture is found among so many
FLOOR = 0.1  # of the mean variance


@dataclass(frozen=True, eq=False)
class Whitening:
    """x -> u / |u|, u = (C + f tr(C) / d)^(-1/2) (x - m), with the mean m and the covariance C of features.

    What tells categories apart lies in few directions, which without this would hide what tells two pictures
    of one category apart.

    mean    [d]
    matrix  [d, d]
    """

    mean: Tensor
    matrix: Tensor

    @classmethod
    def of(cls, features: Tensor, floor: float = FLOOR) -> Whitening:
        """That of features [n, d], where f is the floor."""
        found, axes = torch.linalg.eigh(torch.cov(features.T))
        return cls(features.mean(0), axes * (found + floor * found.mean()).rsqrt())

    def __call__(self, features: Tensor) -> Tensor:
        """Of features [n, d], alike."""
        return F.normalize((features - self.mean) @ self.matrix)


@dataclass(frozen=True, eq=False)
class Shown:
    """Samples beside the pictures that were asked for.

    features  [n, d]
    nearest   [n], the place of the nearest picture of all
    distance  [n], to that one
    ranks     [n], 1 where no picture is nearer than the one that was asked for
    right     [n], whether the classifier takes the sample for the category that was asked for
    """

    features: Tensor
    nearest: Tensor
    distance: Tensor
    ranks: Tensor
    right: Tensor

    @property
    def found(self) -> Estimate:
        """The share whose picture is among the `NEAR` nearest."""
        return Estimate.share(self.ranks <= NEAR)

    @property
    def accuracy(self) -> Estimate:
        """The share in the right category."""
        return Estimate.share(self.right)


@dataclass(frozen=True, eq=False)
class Pictures:
    """What samples are held against: N pictures, each with a name of its own.

    features    [N, d], of length 1
    categories  [N], places among the classifier's classes
    names       of the pictures
    space       makes features of length 1 of what the classifier sees
    of          the classifier's name or path
    """

    features: Tensor
    categories: Tensor
    names: Sequence[str]
    space: Callable[[Tensor], Tensor] = F.normalize
    of: str | Path = CLASSIFIER

    def seen(self, images: Tensor) -> Described:
        """Features of length 1, and likeliest categories.

        Args:
            images: [n, 3, 64, 64] in [-1, 1], or uint8.

        Raises:
            ValueError: another shape, or values that are not finite.
        """
        found = describe(images, self.of)
        return Described(self.space(found.features.double()), found.classes)

    def places(self, names: Sequence[str]) -> Tensor:
        """Of pictures by their names [n].

        Args:
            names: of pictures.

        Raises:
            ValueError: no picture has a name; the sentence names one like it.
        """
        known = {name: i for i, name in enumerate(self.names)}
        if unknown := [name for name in names if name not in known]:
            raise ValueError(
                f"no picture is called {unknown[0]!r}{checks.nearest(unknown[:1], list(known))}"
            )
        return torch.tensor([known[name] for name in names])

    def shown(self, samples: Described, names: Sequence[str]) -> Shown:
        """What samples show of what they were asked for.

        Args:
            samples: what `seen` made of them.
            names: of the picture that each was asked for.

        Raises:
            ValueError: as many names as samples are needed, and each of a picture.
        """
        if len(names) != len(samples.features):
            raise ValueError(
                f"{len(names)} names for {len(samples.features)} samples: give one for each"
            )
        own = self.places(names)
        apart = torch.cdist(samples.features, self.features)
        distance, nearest = apart.min(dim=1)
        ranks = 1 + (apart < apart.gather(1, own[:, None])).sum(dim=1)
        right = samples.classes == self.categories[own]
        return Shown(samples.features, nearest, distance, ranks, right)

    def memorisation(self, features: Tensor) -> Memorisation:
        """How near samples come to the nearest of all pictures, beside every fifth picture to the nearest of
        the others: what one of the same law has that is no copy.

        Args:
            features: of samples [n, d], as `seen` makes them.

        Raises:
            ImportError: faiss is missing.
        """
        from ..training.data import held_out

        held = held_out(len(self.features))
        others = memorisation(self.features[held], Index(self.features[~held], metric="l2")).samples
        threshold = float(others.nearest.quantile(SHARE))
        index = Index(self.features, metric="l2")
        found = memorisation(features, index, threshold=threshold)
        return replace(found, held_out=others)


@cache
def trained() -> Pictures:
    """The pictures of the emoji networks, fetched with npm where they are not kept yet.

    Raises:
        ValueError: that cannot be.
    """
    from ..training.emoji import emoji

    found = emoji()
    features = describe(found.images, CLASSIFIER).features.double()
    space = Whitening.of(features)
    return Pictures(space(features), found.categories, found.names, space)


def diversity(features: Tensor, each: int) -> Estimate:
    """The mean distance between two samples of one prompt, and its standard error over prompts.

    Args:
        features: [prompts * each, d]: `each` samples of a prompt stand together.
        each: 2 or more.

    Raises:
        ValueError: there are no two samples of a prompt, or they cannot be dealt out.
    """
    each = checks.whole("each", each, 2, "one sample of a prompt differs from no other")
    if not len(features) or len(features) % each:
        raise ValueError(
            f"{len(features)} samples are no sets of {each}: give as many of each prompt"
        )
    sets = features.view(-1, each, features.shape[1])
    apart = torch.cdist(sets, sets).sum(dim=(1, 2)) / (each * (each - 1))
    if len(apart) == 1:
        return Estimate(float(apart), 0.0)
    return Estimate.over(apart.tolist())
