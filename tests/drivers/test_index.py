"""The neighbours of an index are those that brute force finds, alone and among others, before and after a
file."""

import pickle

import numpy as np
import pytest
import torch
from optional import needs
from oracles.neighbours import nearest
from retrieval_cases import database

from diffusion_engine.drivers.index import Index

needs("faiss")

HOW = [
    {"metric": metric, "normalise": normalise}
    for metric in ("inner_product", "l2")
    for normalise in (True, False)
]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("width", [2, 33])
def test_an_exact_index_finds_what_brute_force_finds(how, width):
    embeddings = database(0, 300, width)
    embeddings[[7, 120, 299]] = embeddings[40]  # of equals the first
    queries = np.concatenate([database(1, 30, width), embeddings[40:41]])
    index = Index(embeddings, **how)
    found = index.neighbours(queries, 6)
    held, asked = index.embeddings.double().numpy(), index.vectors(queries).double().numpy()
    for i, query in enumerate(asked):
        indices, similarities = zip(*nearest(held, query, 6, how["metric"]), strict=True)
        assert tuple(found.indices[i].tolist()) == indices
        assert found.similarities[i].numpy() == pytest.approx(similarities, rel=1e-13, abs=1e-15)
    assert torch.equal(found.embeddings, index.embeddings[found.indices])
    assert found.indices[-1, :4].tolist() == [7, 40, 120, 299] or how["metric"] == "inner_product"


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
def test_neighbours_that_float32_cannot_tell_apart_are_told(metric):
    """More of them than candidates: the faintest digit is in float32's embeddings, not in its sums."""
    near = np.full((200, 64), 0.125, np.float32)
    near[np.arange(200), 0] -= (
        np.random.default_rng(2).permutation(200).astype(np.float32) * 2.0**-27
    )
    query = np.full((1, 64), 0.125, np.float32)
    index = Index(near, metric=metric, normalise=False)
    found = index.neighbours(query, 5).indices[0].tolist()
    wanted = [i for i, _ in nearest(near.astype(float), query[0].astype(float), 5, metric)]
    assert found == wanted


@pytest.mark.parametrize("kind", ["exact", "approximate"])
@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_query_has_the_same_neighbours_alone_and_among_others(kind, how):
    index = Index(database(3, 400, 16), kind, **how)
    queries = database(4, 40, 16)  # for twenty and more faiss multiplies matrices
    together = index.neighbours(queries, 5)
    for i in range(0, 40, 7):
        assert same(index.neighbours(queries[i : i + 1], 5), (part[i : i + 1] for part in together))


@pytest.mark.parametrize("how", HOW, ids=str)
def test_an_approximate_index_finds_most_and_the_same_again(how):
    embeddings, queries = database(5, 2000, 16), database(6, 100, 16)
    exact = Index(embeddings, **how).neighbours(queries, 10)
    index = Index(embeddings, "approximate", **how)
    found = index.neighbours(queries, 10)
    shared = [
        len(set(a) & set(b)) / 10
        for a, b in zip(exact.indices.tolist(), found.indices.tolist(), strict=True)
    ]
    assert np.mean(shared) > 0.95
    assert (found.similarities.diff(dim=1) <= 0).all()
    assert same(found, Index(embeddings, "approximate", **how).neighbours(queries, 10))


def test_more_effort_finds_more():
    embeddings, queries = database(5, 3000, 32), database(6, 100, 32)
    indices = [
        Index(embeddings),
        *(Index(embeddings, "approximate", links=8, build=40, search=s) for s in (200, 1)),
    ]
    found = [index.neighbours(queries, 10).similarities.sum() for index in indices]
    assert found[0] >= found[1] > found[2]


@pytest.mark.parametrize("kind", ["exact", "approximate"])
@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_saved_index_is_the_same_one(kind, how, tmp_path):
    index = Index(database(7, 150, 9), kind, **how)
    index.save(tmp_path / "pets.safetensors")
    queries = database(8, 5, 9)
    for again in (Index.load(tmp_path / "pets.safetensors"), pickle.loads(pickle.dumps(index))):
        assert again.digest == index.digest
        assert same(again.neighbours(queries, 4), index.neighbours(queries, 4))


def test_a_digest_tells_one_index_from_another():
    embeddings = database(9)
    moved = embeddings.copy()
    moved[3, 1] += 1e-6
    digests = {
        Index(embeddings).digest, Index(moved).digest, Index(embeddings[::-1]).digest,
        Index(embeddings, metric="l2").digest, Index(embeddings, normalise=False).digest,
        Index(embeddings, "approximate").digest, Index(embeddings, "approximate", search=65).digest,
    }  # fmt: skip
    assert len(digests) == 7
    assert (
        Index(embeddings, search=65).digest == Index(embeddings).digest
    )  # which an exact one has no use of


def test_a_users_embeddings_may_change_afterwards():
    for dtype in (np.float32, np.float64):
        embeddings = database(10).astype(dtype)
        index = Index(embeddings, normalise=False)
        kept = index.embeddings.clone()
        embeddings[:] = 0.0
        assert torch.equal(index.embeddings, kept)


def test_no_queries_have_no_neighbours():
    found = Index(database(11)).neighbours(np.empty((0, 2)), 3)
    assert [tuple(part.shape) for part in found] == [(0, 3, 2), (0, 3), (0, 3)]


E2 = np.eye(2)
BAD = {
    "no matrix": (lambda: Index([1.0, 2.0]), r"the shape \[2\]: embeddings are numbers \[m, d\]"),
    "words": (lambda: Index("pets"), "embeddings='pets': embeddings are"),
    "empty": (lambda: Index(np.empty((0, 4))), "embeddings has none"),
    "no width": (lambda: Index(np.empty((4, 0))), r"has the shape \[4, 0\]"),
    "nan": (lambda: Index([[1.0, np.nan]]), "embeddings holds NaN"),
    "zero": (lambda: Index([[1.0, 0.0], [0.0, 0.0]]), r"embeddings\[1\] is 0 and has no direction; drop it"),
    "kind": (lambda: Index(E2, "ivf"), "kind='ivf': choose exact, approximate"),
    "metric": (lambda: Index(E2, metric="cosine"), "metric='cosine': choose inner_product, l2"),
    "normalise": (lambda: Index(E2, normalise="no"), "give True or False"),
    "search": (lambda: Index(E2, search=0), "search=0: give a whole number, 1 or more"),
    "width": (lambda: Index(E2).neighbours(np.eye(3), 1), "queries are 3 wide and the index's embeddings 2"),
    "k": (lambda: Index(E2).neighbours(E2, 0), "k=0: ask for 1 neighbour or more"),
    "large k": (lambda: Index(E2).neighbours(E2, 3), "k=3 of an index of 2 embeddings; ask for 2 at most"),
    "absent file": (lambda: Index.load("no.safetensors"), "does not exist; write an index with save"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told(case):
    make, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        make()


def test_a_graph_that_falls_apart_is_told():
    """Of many equal vectors a graph of few links reaches a part alone."""
    islands = np.repeat(np.eye(40, dtype=np.float32), 40, axis=0)
    index = Index(islands, "approximate", links=2, build=1, search=1)
    with pytest.raises(
        ValueError, match=r"the graph found \d+ of k=1590 neighbours; give the index a greater"
    ):
        index.neighbours(islands[:3], 1590)


@pytest.mark.parametrize("spoil", ["header", "numbers", "text"])
def test_a_damaged_file_is_told(spoil, tmp_path):
    path = tmp_path / "pets.safetensors"
    Index(database(12)).save(path)
    content = bytearray(path.read_bytes())
    if spoil == "header":
        content = content.replace(b"diffusion-engine-index/1", b"diffusion-engine-index/9")
    elif spoil == "numbers":
        content[-3] ^= 1
    else:
        content = bytearray(b"no such file")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is no saved index|is damaged: its embeddings are not"):
        Index.load(path)
