"""Samples among training pictures: ranks, categories, diversity and copies, by features of a classifier."""

import math

import pytest
import torch
from optional import needs

from diffusion_engine import zoo
from diffusion_engine.evaluation.features import Described, describe
from diffusion_engine.evaluation.pictures import Pictures, Whitening, diversity


@pytest.fixture
def pictures():
    """Directions of a plane, 10 degrees apart."""
    angles = torch.arange(0, 180, 10).double().deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    return Pictures(features, torch.arange(18) // 9, [f"at {10 * i}" for i in range(18)])


def at(*degrees, classes=None):
    angles = torch.tensor(degrees).double().deg2rad()
    classes = torch.zeros(len(degrees), dtype=torch.long) if classes is None else classes
    return Described(torch.stack([angles.cos(), angles.sin()], dim=1), classes)


def test_ranks_count_the_pictures_that_are_nearer(pictures):
    samples = at(41.0, 41.0, 44.0, 41.0)
    shown = pictures.shown(samples, ["at 40", "at 50", "at 70", "at 170"])
    assert shown.ranks.tolist() == [1, 2, 6, 18]
    assert shown.nearest.tolist() == [4] * 4
    chord = 2.0 * math.sin(math.radians(0.5))
    assert shown.distance[0].item() == pytest.approx(chord)
    assert shown.right.tolist() == [True, True, True, False]
    assert shown.found.value == 0.5 and shown.accuracy.value == 0.75


def test_names_that_are_of_no_picture(pictures):
    with pytest.raises(ValueError, match="no picture is called 'at 45'; did you mean at"):
        pictures.shown(at(1.0), ["at 45"])
    with pytest.raises(ValueError, match="2 names for 1 samples"):
        pictures.shown(at(1.0), ["at 40", "at 50"])


def test_diversity_is_the_mean_chord_within_a_prompt():
    features = at(0.0, 60.0, 90.0, 90.0, 0.0, 180.0).features
    found = diversity(features, 2)
    assert found.value == pytest.approx((1.0 + 0.0 + 2.0) / 3.0)
    assert found.spread == pytest.approx(1.0 / math.sqrt(3.0))
    assert diversity(features[:3], 3).value == pytest.approx(
        (1.0 + math.sqrt(2.0) + 2.0 * math.sin(math.radians(15.0))) / 3.0
    )
    with pytest.raises(ValueError, match="6 samples are no sets of 4"):
        diversity(features, 4)


def test_copies_are_near_and_held_out_pictures_are_not(pictures):
    needs("faiss")
    found = pictures.memorisation(at(40.0, 45.0).features)
    assert found.samples.nearest[0].item() < 1e-6  # embeddings are float32 in an index
    assert found.samples.nearest[1].item() == pytest.approx(
        2 * math.sin(math.radians(2.5)), rel=1e-5
    )
    assert found.memorised().tolist() == [True, False]
    # 40, 90 and 140 degrees lie 10 from their neighbours, which are the others.
    chord = 2.0 * math.sin(math.radians(5.0))
    assert found.held_out.nearest.tolist() == pytest.approx([chord] * 3, rel=1e-5)


def test_a_classifier_of_colour_pictures_describes_them(tmp_path):
    architecture = {
        "name": "classifier_features", "features": 5, "classes": 3, "channels": [2, 4], "inputs": 3,
        "side": 8,
    }  # fmt: skip
    torch.manual_seed(0)
    module = zoo.build(architecture)
    path = tmp_path / "small.safetensors"
    zoo.save(path, module, {"architecture": architecture, "shape": [3, 8, 8]})
    images = torch.rand(4, 3, 8, 8) * 2 - 1
    none = torch.zeros(0, 5)
    found = Pictures(none, none, (), of=path).seen(images)
    assert found.features.norm(dim=1).tolist() == pytest.approx([1.0] * 4)
    assert torch.equal(found.classes, describe(images, path).classes)
    with pytest.raises(ValueError, match=r"knows small of the shape \[2, 3, 8, 8\]"):
        describe(torch.zeros(2, 1, 8, 8), path)
    with pytest.raises(ValueError, match="side 12 cannot be halved 3 times"):
        zoo.build({"name": "classifier_features", "side": 12})


def test_whitened_features_have_one_variance_in_every_direction():
    torch.manual_seed(0)
    x = torch.randn(4000, 3).double() * torch.tensor([100.0, 10.0, 1.0]) + 7.0
    x = x @ torch.linalg.qr(torch.randn(3, 3).double()).Q
    made = Whitening.of(x, floor=0.0)
    assert torch.cov(((x - made.mean) @ made.matrix).T).sub(torch.eye(3)).abs().max() < 1e-9
    assert made(x).norm(dim=1).sub(1.0).abs().max() < 1e-12
    # The floor leaves directions that hardly vary small.
    floored = torch.cov(((x - x.mean(0)) @ Whitening.of(x, floor=0.1).matrix).T).diagonal()
    variances = torch.linalg.eigvalsh(torch.cov(x.T))
    assert torch.allclose(floored, variances / (variances + 0.1 * variances.mean()))
