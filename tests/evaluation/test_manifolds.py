"""Precision and recall of sets whose manifolds are known."""

import pytest
import torch

from diffusion_engine.evaluation import precision_recall


def line(start, count=10):
    """Points one apart: a manifold from start - k to start + count - 1 + k, as the ends look inwards."""
    return torch.stack((start + torch.arange(count).float(), torch.zeros(count)), dim=1)


def means(reference, samples, k=3):
    return tuple(float(part.float().mean()) for part in precision_recall(reference, samples, k))


def test_of_equal_sets():
    assert means(line(0.0), line(0.0)) == (1.0, 1.0)


def test_of_sets_far_apart():
    assert means(line(0.0), line(100.0)) == (0.0, 0.0)


def test_samples_of_one_mode_of_two():
    """All of them are good, and half of the reference is not reached."""
    both = torch.cat((line(0.0), line(100.0)))
    assert means(both, line(0.0)) == (1.0, 0.5)
    assert means(line(0.0), both) == (0.5, 1.0)


def test_the_radius_is_that_of_the_kth_neighbour():
    """Of 0, 1, .., 9 the last one's k-th neighbour is k away."""
    beyond = torch.tensor([[9.0 + 1.9, 0.0], [9.0 + 2.1, 0.0], [500.0, 0.0]])
    inside, _ = precision_recall(line(0.0), beyond, k=2)
    assert inside.tolist() == [True, False, False]


@pytest.mark.parametrize(
    "samples, k, message",
    [
        (line(0.0, 3), 3, "3 features have no 3 neighbours each"),
        (line(0.0), 0, "take 1 neighbour or more"),
        (torch.zeros(10, 5), 3, "of the same d"),
    ],
)
def test_what_has_no_manifold(samples, k, message):
    with pytest.raises(ValueError, match=message):
        precision_recall(line(0.0), samples, k)
