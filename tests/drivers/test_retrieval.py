"""Neighbours as a condition: what is drawn follows the database, and a recipe knows which it was."""

import numpy as np
import pytest
import torch
from optional import needs
from oracles import neighbours as oracle
from oracles.one_step import ddim
from oracles.problems import VPLinear
from retrieval_cases import STD, WIDTH, database, network, retrieval, served

from diffusion_engine import Engine, Sampler
from diffusion_engine.drivers.index import Index
from diffusion_engine.drivers.retrieval import Retrieval, Retrieved

needs("faiss")

REFERENCE = {"dtype": torch.float64, "backend": "torch"}
PETS, CARS = database(0), database(1)
QUERIES = database(2, 4)


def drawn(embeddings, query, start, points, k=3):
    """The end of DDIM from a state, of data around the query's neighbours."""
    rows = [i for i, _ in oracle.nearest(embeddings.astype(float), query.astype(float), k, "l2")]
    centres = embeddings[rows].astype(float)

    def denoiser(x, at):
        return oracle.denoised(x, at.alpha, at.sigma, centres, STD)

    return ddim(denoiser, points, start)


def test_another_database_makes_other_samples_as_computed():
    pets = retrieval(PETS)
    cars = pets.swap(Index(CARS, metric="l2", normalise=False))
    sampler = Sampler(network(pets), "ddim", 12, **REFERENCE)
    schedule = VPLinear()
    points = [*(schedule.point(p.t) for p in sampler.points[:-1]), schedule.clean()]
    start = np.random.default_rng(3).normal(size=(4, WIDTH))
    ends = {}
    for name, asked, embeddings in (("pets", pets, PETS), ("cars", cars, CARS)):
        found = sampler.sample(
            x=torch.from_numpy(start), noised=True, condition=asked.condition(QUERIES)
        )
        wanted = [drawn(embeddings, q, x, points) for q, x in zip(QUERIES, start, strict=True)]
        assert found.samples.numpy() == pytest.approx(np.array(wanted), abs=1e-10)
        ends[name] = found.samples
    assert (ends["pets"] - ends["cars"]).abs().max() > 0.3
    again = sampler.sample(
        x=torch.from_numpy(start), noised=True, condition=pets.condition(QUERIES)
    )
    assert torch.equal(again.samples, ends["pets"])


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_bits_are_the_same_alone_and_beside_other_databases_and_lengths(backend):
    pets, cars = retrieval(PETS), retrieval(CARS)
    sampler = Sampler(network(pets), "dpmpp_2m_sde", 6, backend=backend, guidance=1.5)
    k = [3, 1, 2, 3]
    parts = [pets.condition(QUERIES[:2], k[:2]), cars.condition(QUERIES[2:], k[2:])]
    mixed = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    together = sampler.sample(4, seed=5, condition=mixed).samples
    for i, asked in enumerate((pets, pets, cars, cars)):
        alone = asked.condition(QUERIES[i : i + 1], k[i])
        assert torch.equal(sampler.sample(1, seed=5 + i, condition=alone).samples[0], together[i])


def test_fewer_neighbours_are_those_of_a_smaller_k():
    """Padding is masked: a context of three places draws what one of two places does."""
    wide, narrow = retrieval(PETS, 3), retrieval(PETS, 2)
    samples = []
    for asked in (wide, narrow):
        sampler = Sampler(network(asked), "ddim", 5, **REFERENCE)
        samples.append(sampler.sample(4, condition=asked.condition(QUERIES, 2)).samples)
    assert samples[0].numpy() == pytest.approx(samples[1].numpy(), abs=1e-12)


def test_a_context_is_the_query_and_its_neighbours_and_then_zeros():
    embeddings = database(4, 20, 8)
    index = Index(embeddings)
    asked = Retrieval(
        index, lambda words: np.stack([embeddings[w] for w in words]), 4, mask="there"
    )
    made = asked.condition([3, 7, 11], [4, 0, 2])
    context, there = made["context"], made["there"]
    assert list(context.shape) == [3, 5, 8] and context.dtype == torch.float32
    assert there.tolist() == [[True] * 5, [True] + [False] * 4, [True] * 3 + [False] * 2]
    assert torch.equal(context[:, 0], index.embeddings[[3, 7, 11]])
    assert torch.equal(context[0, 1:], index.neighbours(embeddings[3:4], 4).embeddings[0])
    assert torch.equal(context[2, 1:3], index.neighbours(embeddings[11:12], 2).embeddings[0])
    assert not context[~there].any()
    null = asked.null()
    assert [(k, list(v.shape)) for k, v in null.items()] == [("context", [5, 8]), ("there", [5])]
    assert not null["context"].any() and null["there"].all()


def test_without_neighbours_a_context_is_the_query():
    index = Index(database(5, 9, 3))
    made = Retrieval(index, k=0, name="").condition(index.embeddings[:2])
    assert list(made) == [""] and torch.equal(made[""][:, 0], index.embeddings[:2])


def test_an_engine_swaps_the_index_between_requests():
    pets, cars = retrieval(PETS), retrieval(CARS)
    net = network(pets)
    sampler = Sampler(net, "ddim", 6)
    with Engine(net) as engine:
        spec = {"solver": "ddim", "steps": 6}
        handles = [
            engine.submit(spec, condition=asked.condition(QUERIES), seeds=range(4))
            for asked in (pets, cars)
        ]
        for asked, handle in zip((pets, cars), handles, strict=True):
            result = handle.result()
            assert result.recipe["origins"] == [asked.origin]
            alone = sampler.sample(seeds=range(4), condition=asked.condition(QUERIES))
            assert torch.equal(result.samples, alone.samples)


@pytest.mark.slow
def test_a_server_takes_the_tokens(tmp_path):
    needs("httpx")
    from served import serving

    pets = retrieval(PETS)
    tokens = pets.condition(QUERIES)["context"]
    flags = ("--model", "around=retrieval_cases:served", "--capacity", "4")
    with serving(tmp_path, *flags) as server, server.client() as client:
        made = client.sample("ddim", steps=4, seeds=range(4), condition=tokens.numpy())
    alone = Sampler(served(), "ddim", 4).sample(seeds=range(4), condition=tokens)
    assert np.array_equal(made.samples, alone.samples.numpy())


# --- recipes


def made(asked, **request):
    return Sampler(network(asked), "ddim", 4).sample(
        4, condition=asked.condition(QUERIES), **request
    )


def test_a_recipe_names_the_index_and_is_replayed_with_it(tmp_path):
    pets = retrieval(PETS)
    result = made(pets)
    assert result.recipe["origins"] == [f"retrieval/{pets.index.digest}"]
    pets.index.save(tmp_path / "pets.safetensors")
    loaded = pets.swap(Index.load(tmp_path / "pets.safetensors"))
    again = Sampler.replay(network(pets), result.recipe, condition=loaded.condition(QUERIES))
    assert torch.equal(again.samples, result.samples)
    tensors = Retrieved(dict(pets.condition(QUERIES)), pets.origin)
    assert torch.equal(
        Sampler.replay(network(pets), result.recipe, condition=tensors).samples, result.samples
    )


@pytest.mark.parametrize("other", ["index", "tensors"])
def test_a_replay_refuses_another_index(other):
    pets, cars = retrieval(PETS), retrieval(CARS)
    result = made(pets)
    given = cars.condition(QUERIES) if other == "index" else dict(pets.condition(QUERIES))
    here = cars.origin if other == "index" else "nothing that is known"
    with pytest.raises(ValueError, match=f"made of {pets.origin} and is made of {here} here"):
        Sampler.replay(network(pets), result.recipe, condition=given)


def test_composed_conditions_name_theirs():
    pets, cars = retrieval(PETS), retrieval(CARS)
    pairs = [(pets.condition(QUERIES), 0.5), (cars.condition(QUERIES), 0.5)]
    result = Sampler(network(pets), "ddim", 4).sample(4, compose=pairs)
    assert result.recipe["origins"] == [pets.origin, cars.origin]
    again = Sampler.replay(network(pets), result.recipe, compose=pairs)
    assert torch.equal(again.samples, result.samples)
    with pytest.raises(ValueError, match="give one that was made of the same"):
        Sampler.replay(network(pets), result.recipe, compose=pairs[::-1])


def test_other_recipes_name_none():
    pets = retrieval(PETS)
    result = Sampler(network(pets), "ddim", 2).sample(1)
    assert result.recipe["origins"] == []


# --- what is wrong is told

INDEX = Index(database(6, 5, 4))
BAD = {
    "no index": (lambda: Retrieval(np.eye(3)), "index=ndarray .*: give an Index of embeddings"),
    "embed": (lambda: Retrieval(INDEX, "clip", 2), "embed='clip': give a function of queries"),
    "k": (lambda: Retrieval(INDEX, k=-1), "k=-1: a whole number of neighbours"),
    "large k": (lambda: Retrieval(INDEX, k=6), "k=6 of an index of 5; give a smaller k"),
    "no token": (lambda: Retrieval(INDEX, k=0, own=False), "leave no token"),
    "name": (lambda: Retrieval(INDEX, k=2, name=None), "name=None: give a keyword"),
    "width": (lambda: Retrieval(INDEX, k=2, width=768), "embeddings are 4 wide and the network's tokens 768"),
    "swap": (
        lambda: Retrieval(INDEX, k=2).swap(Index(np.eye(9))),
        "embeddings are 9 wide and the network's tokens 4; give an index of embeddings that the network",
    ),
    "query": (
        lambda: Retrieval(INDEX, k=2).condition(np.eye(3)),
        "queries are 3 wide and the index's embeddings 4; embed both by the same function",
    ),
    "counts": (
        lambda: Retrieval(INDEX, k=2, mask="m").condition(np.eye(4), [1, 2]), "k has 2 entries for 4 queries"
    ),
    "more": (
        lambda: Retrieval(INDEX, k=2, mask="m").condition(np.eye(4), 3), "k=3 and a context has room for k=2"
    ),
    "no mask": (lambda: Retrieval(INDEX, k=2).condition(np.eye(4), 1), "give mask=, the keyword of its mask"),
    "nothing": (
        lambda: Retrieval(INDEX, k=2, own=False, mask="m").condition(np.eye(4), [1, 2, 0, 1]),
        "k=0 leaves a query no token",
    ),
    "network": (
        lambda: Sampler(network(retrieval(PETS)), "ddim", 2, guidance=2.0).sample(
            4, condition=retrieval(database(7, 9, 3)).condition(database(8, 4, 3))
        ),
        "give both the same",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told(case):
    make, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        make()
