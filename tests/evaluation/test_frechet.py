"""The Frechet distance against closed forms of Gaussians."""

import pytest
import torch
from optional import needs

from diffusion_engine.evaluation import FrechetDistance, moments


def exactly(count, mean, root, seed=0):
    """[count, d] with this mean, and root root^T as their covariance, to rounding."""
    mean = torch.as_tensor(mean, dtype=torch.float64)
    x = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed)).double()
    x = x - x.mean(dim=0)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(x.T @ x / (count - 1)), x.T, upper=False
    ).T
    return white @ torch.as_tensor(root, dtype=torch.float64).T + mean


def distance(a, b):
    needs("torchmetrics")
    return FrechetDistance(moments(a))(b)


def test_of_gaussians_with_the_same_axes():
    """|m1 - m2|^2 + sum (s1 - s2)^2."""
    a = exactly(50, [0.0, 1.0, 2.0], torch.diag(torch.tensor([1.0, 2.0, 3.0])))
    b = exactly(80, [1.0, 1.0, 0.0], torch.diag(torch.tensor([2.0, 2.0, 0.5])), seed=1)
    assert distance(a, b) == pytest.approx(5.0 + 1.0 + 6.25, rel=1e-9)


def test_of_gaussians_with_other_axes():
    """tr (S1 S2)^(1/2) of 2x2 matrices is sqrt(tr(S1 S2) + 2 sqrt(det(S1 S2)))."""
    first, second = torch.tensor([[1.0, 0.0], [0.8, 0.5]]), torch.tensor([[2.0, -0.3], [0.0, 0.7]])
    product = (first @ first.T @ second @ second.T).double()
    both = torch.sqrt(product.trace() + 2.0 * torch.sqrt(torch.linalg.det(product)))
    wanted = 0.25 + float((first @ first.T + second @ second.T).trace() - 2.0 * both)
    found = distance(exactly(40, [0.0, 0.0], first), exactly(60, [0.0, 0.5], second, seed=1))
    assert found == pytest.approx(wanted, rel=1e-6)


def test_one_distance_measures_many_sets():
    needs("torchmetrics")
    a, b = exactly(40, [0.0, 0.0], torch.eye(2)), exactly(50, [3.0, 0.0], torch.eye(2), seed=1)
    measure = FrechetDistance(moments(a))
    assert [measure(each) for each in (b, a, b)] == pytest.approx([9.0, 0.0, 9.0], abs=1e-9)


def test_the_spread_is_that_of_repeated_sets():
    """Of N(0, 1) against N(3, 1): the distance is about (3 - mean)^2, whose deviation is 6 / sqrt(n)."""
    needs("torchmetrics")
    generator = torch.Generator().manual_seed(2)
    measure = FrechetDistance(moments(exactly(50, [3.0], torch.eye(1))))
    spread = measure.spread(torch.randn(400, 1, generator=generator))
    assert spread == pytest.approx(6.0 / 20.0, rel=0.2)


def test_groups_keep_their_sizes():
    """Two points are two groups: resamples within them are the set itself."""
    needs("torchmetrics")
    x = torch.tensor([[0.0], [4.0]]).repeat(20, 1)
    measure = FrechetDistance(moments(exactly(50, [0.0], torch.eye(1))))
    assert measure.spread(x, torch.arange(40) % 2) == pytest.approx(0.0, abs=1e-9)
    assert measure.spread(x) > 0.5


@pytest.mark.parametrize(
    "features, message",
    [
        (torch.zeros(4, 4), "4 samples have no covariance of 4 features; give more than 4"),
        (torch.full((9, 2), float("nan")), "not finite have no moments"),
        (torch.zeros(9), r"of the shape \[9\]: give"),
    ],
)
def test_what_has_no_distance(features, message):
    needs("torchmetrics")
    with pytest.raises(ValueError, match=message):
        moments(features)


def test_a_missing_torchmetrics_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(ValueError, match=r"pip install 'diffusion-engine\[eval\]'"):
        moments(torch.randn(9, 2))
