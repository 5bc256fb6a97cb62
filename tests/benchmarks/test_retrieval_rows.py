"""The rows of a network that is told neighbours: which those are, and what is said of known samples."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from optional import needs

from benchmarks.pages.blocks.retrieval import retrieval as block
from benchmarks.runs import retrieval as run
from diffusion_engine.drivers.index import Index
from diffusion_engine.drivers.retrieval import Retrieval
from diffusion_engine.evaluation.pictures import Pictures

needs("faiss")
ANGLES = torch.deg2rad(torch.tensor([0.0, 10.0, 25.0, 45.0, 170.0]))
CIRCLE = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)


@pytest.mark.parametrize(
    ("way", "wanted"), [(run.WAYS[0], [[0, 1], [3, 2]]), (run.WAYS[1], [[1, 2], [2, 1]])]
)
def test_a_picture_is_among_its_neighbours_or_left_out(way, wanted):
    retrieval = Retrieval(Index(CIRCLE), k=2, own=False, name="", scale=2.0, zeros=True)
    told = run.contexts(SimpleNamespace(retrieval=retrieval, k=2), [0, 3], way)
    torch.testing.assert_close(told, 2.0 * CIRCLE[torch.tensor(wanted)])


def test_copies_are_told_from_others():
    drawn = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(40, 6, generator=drawn).double())
    known = SimpleNamespace(features=features)
    pictures = SimpleNamespace(memorisation=partial(Pictures.memorisation, known))
    said = {}
    for name, samples in (("copies", features[:20] + 1e-4), ("others", -features[:20])):
        apart = torch.cdist(samples, features)
        ranks = 1 + (apart < apart.diagonal()[:, None]).sum(dim=1)
        found = dict(run.quantities(ranks, samples, pictures))
        said[name] = {quantity: estimate.value for quantity, estimate in found.items()}
    assert said["copies"]["nearest"] == said["copies"]["below 1/3, samples"] == 1.0
    assert said["others"]["found"] < 0.1 and said["others"]["below 1/3, samples"] < 0.2
    assert said["copies"]["median d1, samples"] < 1e-3 < said["copies"]["median d1, held_out"]


def test_the_page_says_what_the_rows_say():
    said = block()
    assert all(way in said for way in (*run.WAYS, "held-out pictures"))
