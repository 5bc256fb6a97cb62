"""The rows of VDM's bound under two schedules, and what the page says of them."""

import pytest
import torch

from benchmarks import results
from benchmarks.pages.blocks.bound import quality_bound
from benchmarks.runs import bound


def test_the_difference_is_that_of_the_images(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    learned = torch.tensor([1.0, 2.0, 3.0])
    straight = learned + torch.tensor([0.1, 0.2, 0.3])
    made = [row for steps in bound.STEPS for row in bound.rows(steps, learned, straight)]
    assert tuple(made[0]) == results.BOUND_KEYS
    assert made[2]["value"] == pytest.approx(0.2)
    assert made[2]["spread"] == pytest.approx(0.1 / 3**0.5)
    results.replace(made, results.BOUND)
    lines = quality_bound().splitlines()
    assert lines[0] == "| time | learned | straight | the straight one costs more |"
    assert lines[3] == "| in 50 steps | 2.000 ± 1.132 | 2.200 ± 1.245 | 0.200 ± 0.113 |"
