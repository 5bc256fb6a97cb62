"""Precision and recall by k nearest neighbours (Kynkaanniemi et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import checks

NEIGHBOURS = 3


def precision_recall(
    reference: Tensor, samples: Tensor, k: int = NEIGHBOURS
) -> tuple[Tensor, Tensor]:
    """Which samples lie in the reference's manifold [m], and which of the reference in the samples' [n].

    A set's manifold is the union of balls around its members, each up to the k-th nearest other one (eq. 1).
    Precision and recall are the two means (eq. 2); both depend on the sets' sizes.

    Args:
        reference: features [n, d].
        samples: features [m, d].
        k: 1 to the smaller set's size - 1.

    Raises:
        ValueError: too few members for k neighbours, or other dimensions.
    """
    k = checks.whole("k", k, 1, "take 1 neighbour or more")
    few = min(len(reference), len(samples))
    if few <= k:
        raise ValueError(f"{few} features have no {k} neighbours each; give more than {k}")
    if reference.ndim != 2 or samples.shape[1:] != reference.shape[1:]:
        raise ValueError(
            f"features of the shapes {list(reference.shape)} and {list(samples.shape)}: give [n, d] of "
            "the same d"
        )
    reference, samples = reference.double(), samples.double()
    between = _distances(samples, reference)
    inside = between <= _radii(reference, k)
    covered = between <= _radii(samples, k)[:, None]
    return inside.any(dim=1), covered.any(dim=0)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """By differences: a point lies at distance 0 from itself."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(points: Tensor, k: int) -> Tensor:
    """The distance of each point's k-th nearest other one."""
    return _distances(points, points).kthvalue(k + 1, dim=1).values
