"""The rows of compositions with a Markov chain and without: what the measures say of known samples."""

import torch

from benchmarks import results
from benchmarks.pages.blocks.composition import composition
from benchmarks.runs import composition as run


def test_measures_tell_the_digits_from_noise():
    images = run.sampler_of("ddpm, as many steps", batch_size=100)
    assert (len(images.points), images.solver.name) == (21, "ddpm")
    noise = torch.randn(run.SAMPLES, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = list(run.rows("sharpened", "noise", noise, 1))
    assert [row["quantity"] for row in found] == ["Frechet", "recall"]
    assert found[0]["value"] > 100 and found[1]["value"] < 0.05
    assert tuple(found[0]) == results.COMPOSITION_KEYS


def test_the_share_is_of_the_pair_that_was_asked(monkeypatch):
    """Samples whose logits are what the test says."""
    logits = torch.zeros(6, 10)
    for sample, (first, second) in enumerate([(9, 4), (4, 8), (5, 3), (3, 5), (7, 9), (0, 1)]):
        logits[sample, first], logits[sample, second] = 2.0, 1.0

    class Told:
        def head(self, features):
            return features

    class Described:
        features = logits

    monkeypatch.setattr(run, "classifier", Told)
    monkeypatch.setattr(run, "describe", lambda samples: Described)
    (share,) = run.of_both(torch.zeros(6, 1, 32, 32)).values()
    assert share.value == 4 / 6


def test_the_page_says_what_the_rows_say():
    said = composition()
    assert all(name in said for name in run.CONTENDERS)
