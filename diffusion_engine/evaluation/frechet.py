"""The Frechet distance of features, through torchmetrics: that of the Gaussians with their moments.

|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))                                    (Heusel et al. 2017, eq. 6)
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

# torchmetrics' own names of what it keeps of real features: count, sum, and sum of products.
STATE = ("real_features_num_samples", "real_features_sum", "real_features_cov_sum")


def _metric(dimensions: int) -> Any:
    """torchmetrics' distance of features that are made already, in float64."""
    try:
        fid = import_module("torchmetrics.image.fid")
    except ImportError as error:
        raise ValueError(
            f"the Frechet distance is that of torchmetrics, which cannot be imported ({error}): "
            "pip install 'diffusion-engine[eval]'"
        ) from error
    given = nn.Identity()
    given.num_features = dimensions  # type: ignore[assignment]
    return fid.FrechetInceptionDistance(feature=given, reset_real_features=False)


def _checked(features: Tensor) -> Tensor:
    """[n, d] float64, more of them than dimensions."""
    if features.ndim != 2:
        raise ValueError(f"features of the shape {list(features.shape)}: give [n, dimensions]")
    count, dimensions = features.shape
    if count <= dimensions:
        raise ValueError(
            f"{count} samples have no covariance of {dimensions} features; give more than {dimensions}, "
            "and some thousands for a distance that says something"
        )
    if not features.isfinite().all():
        raise ValueError("features that are not finite have no moments; look at the samples")
    return features.detach().cpu().double()


def moments(features: Tensor) -> dict[str, Tensor]:
    """Count, sum and sum of products of features [n, d]: all that the distance reads of them.

    Raises:
        ValueError: no more features than dimensions, values that are not finite, or no torchmetrics.
    """
    metric = _metric(_checked(features).shape[1])
    metric.update(_checked(features), real=True)
    return {name: getattr(metric, name).clone() for name in STATE}


class FrechetDistance:
    """The distance of sets of features from one reference.

    Args:
        reference: its `moments`.
    """

    def __init__(self, reference: Mapping[str, Tensor]) -> None:
        self.dimensions = len(reference[STATE[1]])
        self._metric = _metric(self.dimensions)
        for name in STATE:
            setattr(self._metric, name, reference[name].clone())

    def __call__(self, features: Tensor) -> float:
        """Of features [n, d]: 0 or more. That of n samples of the reference's own law falls as 1 / n.

        Raises:
            ValueError: no more features than dimensions, or values that are not finite.
        """
        self._metric.reset()
        self._metric.update(_checked(features), real=False)
        return float(self._metric.compute())

    def spread(
        self,
        features: Tensor,
        groups: Tensor | None = None,
        resamples: int = 200,
        seed: int = 0,
    ) -> float:
        """The standard deviation of the distance over bootstrap resamples of the features.

        Resampled sets lie farther away than the set itself, as repeated samples lessen what it covers: their
        spread is used, their level is not.

        Args:
            features: [n, d].
            groups: of each sample, [n]: a group keeps its size, as the digits that were asked for do.
            resamples: 2 or more.
            seed: of the resamples.
        """
        generator = torch.Generator().manual_seed(seed)
        groups = torch.zeros(len(features)) if groups is None else groups
        members = [torch.nonzero(groups == group)[:, 0] for group in groups.unique()]
        found = []
        for _ in range(resamples):
            chosen = [m[torch.randint(len(m), (len(m),), generator=generator)] for m in members]
            found.append(self(features[torch.cat(chosen)]))
        return float(torch.tensor(found, dtype=torch.float64).std())
