"""The shipped classifier and reference, figures of samples, and their spreads."""

import json
import math
import shutil

import pytest
import torch
from optional import needs

from diffusion_engine.evaluation import Estimate, describe, quality, reference, shipped
from diffusion_engine.evaluation.features import WEIGHTS, levels
from diffusion_engine.zoo import config


@pytest.fixture
def noise():
    return torch.randn(80, 1, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1.0, 1.0)


def test_the_classifier_knows_held_out_digits():
    assert config(WEIGHTS)["figures"]["accuracy"] > 0.98
    assert WEIGHTS.stat().st_size < 300_000


def test_samples_are_described_as_a_file_keeps_them(noise):
    seen, kept = describe(noise), describe(levels(noise))
    assert torch.equal(seen.features, kept.features)
    assert seen.features.shape == (80, 64)
    assert levels(torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    "images, message",
    [
        (torch.zeros(3, 3, 32, 32), r"knows digits of the shape \[3, 1, 32, 32\]"),
        (torch.zeros(32, 32), "knows digits"),
        (torch.full((4, 1, 32, 32), math.inf), "4 of 4 samples are not finite"),
    ],
)
def test_what_has_no_features(images, message):
    with pytest.raises(ValueError, match=message):
        describe(images)


def test_figures_of_noise_and_of_the_law_itself(noise):
    needs("torchmetrics")
    law, seen = shipped(), describe(noise)
    bad = quality(seen, law, [0] * 80, resamples=5)
    own = type(seen)(law.features[:500], seen.classes)
    good = quality(own, law, resamples=5)
    assert good.frechet.value < 100.0 < bad.frechet.value
    assert good.precision.value == good.recall.value == 1.0
    assert bad.recall.value < 0.2
    assert bad.accuracy.value == float((seen.classes == 0).float().mean())
    assert good.accuracy is None
    assert (bad.count, good.count) == (80, 500)
    with pytest.raises(ValueError, match="2 digits for 80 samples"):
        quality(seen, law, [0, 1])
    few = type(seen)(seen.features[:60], seen.classes[:60])
    with pytest.raises(ValueError, match="60 samples have no covariance of 64 features"):
        quality(few, law)


def test_estimates():
    share = Estimate.share(torch.arange(100) < 20)
    assert (share.value, share.spread) == (0.2, 0.04)
    assert share.interval == pytest.approx((0.2 - 1.96 * 0.04, 0.2 + 1.96 * 0.04))
    mean = Estimate.over([1.0, 2.0, 3.0])
    assert (mean.value, mean.spread) == pytest.approx((2.0, 1.0 / math.sqrt(3.0)))
    assert Estimate(1.0, 0.3).apart(Estimate(2.0, 0.4)) == pytest.approx(2.0)
    assert Estimate(1.0, 0.0).apart(Estimate(1.0, 0.0)) == 0.0


def test_a_reference_that_does_not_fit(tmp_path, monkeypatch):
    path = tmp_path / reference.PATH.name
    for end in (".safetensors", ".json"):
        shutil.copy(reference.PATH.with_suffix(end), path.with_suffix(end))
    monkeypatch.setattr(reference, "PATH", path)
    shipped.cache_clear()
    about = json.loads(path.with_suffix(".json").read_text())
    other = about | {"features": about["features"] | {"sha256": "0"}}
    path.with_suffix(".json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="made with another classifier"):
        shipped()
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="does not have the checksum"):
        shipped()
