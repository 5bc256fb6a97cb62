"""A sample's bits: those that it has alone, or those that its recipe makes again."""

import json
from collections import Counter

import pytest
import tape
import torch
from command import run
from engine_load import check_load
from engine_networks import (
    Cached,
    attending,
    centred,
    conditional,
    dropped,
    network,
    normed,
    one_time,
    placed,
    scaled,
    tailed,
)
from executor_cases import classes, elementwise

from diffusion_engine import Sampler, zoo
from diffusion_engine.cli import files
from diffusion_engine.engine import Engine, EngineError
from diffusion_engine.native import NativeError
from diffusion_engine.sampler.spec import Recipe

launches_are_recorded = tape.launches_are_recorded
EXECUTORS = {"eager": lambda: "eager", "tapes": tape.taping}
ALL = EXECUTORS | {"native": lambda: "native"}
WAIT = 60


@pytest.fixture(params=EXECUTORS)
def executor(request):
    return EXECUTORS[request.param]()


@pytest.fixture(params=ALL)
def any_executor(request):
    return ALL[request.param]()


REQUESTS = [
    ({"solver": "dpmpp_2m", "steps": 6}, {"condition": [1, 2], "guidance": 2.0, "seed": 3}),
    ({"solver": "ddpm", "steps": 3}, {"condition": [4], "seed": 9}),
    ({"solver": "heun", "steps": 4}, {"condition": [5, 6, 7], "guidance": [1.0, 3.0, 1.0]}),
    ({"solver": "ddim", "steps": 9}, {"condition": [8], "seed": 11}),
    ({"solver": "dpmpp_2m_sde", "steps": 2}, {"condition": [9, 0], "seed": 20}),
]


def results(engine, requests=REQUESTS):
    handles = [engine.submit(spec, **request) for spec, request in requests]
    return [handle.result(WAIT) for handle in handles]


def replayed(network, made, **how):
    """The result of a recipe, which went through JSON."""
    recipe = json.loads(json.dumps(made.recipe, allow_nan=False))
    assert recipe.keys() == Recipe.model_fields.keys()
    again = Sampler.replay(network, recipe, **how)
    assert again.recipe == recipe
    return torch.equal(again.samples, made.samples)


@pytest.mark.parametrize("batch", ["bucket", "fixed"])
def test_what_agrees_is_not_recorded(any_executor, batch):
    """A network whose entries know nothing of their call: each sample is the one alone."""
    own, executor = conditional(), "native" if any_executor == "native" else "eager"
    with Engine(own, capacity=4, batch=batch, executor=any_executor) as engine:
        found = engine.probe("ddim", condition=3)
        assert found.invariant and found.reason is None and "not batched" not in str(found)
        made = results(engine)
    for (spec, request), result in zip(REQUESTS, made, strict=True):
        assert result.recipe["calls"] is None
        padded = (
            batch == "fixed" and executor != "native"
        )  # where no bit depends on a size, it says none
        assert result.recipe["bucket"] == (8 if padded else None)
        alone = Sampler(own, spec["solver"], spec["steps"], executor=executor).sample(**request)
        assert torch.equal(alone.samples, result.samples)


def test_recorded_calls_are_made_again(executor):
    """A network whose bits depend on sizes and places, so that any other call would show."""
    own = conditional(tailed)
    with Engine(own, capacity=4, executor=executor) as engine:
        made = results(engine)
        found = engine.probe("ddim", condition=3)
    assert not found.invariant and found.report()["by_place"]
    for result in made:
        assert result.recipe["bucket"] is None and replayed(own, result)
        assert replayed(own, result, how={"batch_size": 1})
        assert not torch.equal(
            Sampler.replay(own, result.recipe, calls=None).samples, result.samples
        )


def test_a_fixed_size_is_one_whose_places_agree(executor):
    """Whoever sits beside a sample, and wherever: its bits are those of the size alone."""
    own = conditional(tailed)
    with Engine(own, capacity=3, batch="fixed", executor=executor) as engine:
        together = results(engine)
        alone = [result for request in reversed(REQUESTS) for result in results(engine, [request])]
    for one, other in zip(together, reversed(alone), strict=True):
        assert one.recipe == other.recipe and one.recipe["bucket"] == 8  # of 6 entries
        assert torch.equal(one.samples, other.samples) and replayed(own, one)


def test_where_no_size_has_places_that_agree_they_are_recorded(executor):
    own = conditional(placed)
    with Engine(own, capacity=3, batch="fixed", executor=executor) as engine:
        made = results(engine)
    for result in made:
        assert {s for c in result.recipe["calls"] for r in c for s in r[1::2]} == {6}
        assert result.recipe["bucket"] is None and replayed(own, result)


def test_without_a_probe_everything_is_recorded():
    own = conditional()
    for batch in ("bucket", "fixed"):
        with Engine(own, capacity=3, batch=batch, probe=False) as engine:
            made = results(engine)
            with pytest.raises(ValueError, match="nothing to try"):
                engine.probe("ddim", condition=3)
            assert engine.snapshot()["probes"] == {"": []}
        assert all(result.recipe["calls"] and replayed(own, result) for result in made)


MIXING = {
    "batch norm": (normed(), "mixes the samples"),
    "the mean of the batch": (centred, "mixes the samples"),
    "a scale of the batch": (scaled, "mixes the samples"),
    "one time for all": (one_time, "mixes the samples"),
    "attention over the batch": (attending, "mixes the samples"),
    "a cache": (Cached(), "mixes the samples|each time"),
    "dropout": (dropped, "each time"),
}


# Why these cannot be recorded.
REFUSED = {
    "batch norm": "mutated|changes|keeps something",
    "a cache": "keeps something from call to call",
    "dropout": "draws random numbers",
}


@pytest.mark.parametrize("kind", MIXING)
def test_a_network_that_mixes_samples_is_not_batched(kind, any_executor):
    module, reason = MIXING[kind]
    own = network(module)
    if any_executor == "native" and kind in REFUSED:
        refused = pytest.raises(NativeError, match=REFUSED[kind])
        with Engine(own, capacity=4, executor="native") as engine, refused:
            engine.submit("ddim", 2).result(WAIT)
        return
    with Engine(own, capacity=4, executor=any_executor) as engine:
        first = engine.submit("ddim", 2)
        with pytest.raises(EngineError, match=f"({reason}).*capacity=1"):
            first.result(WAIT)
        with pytest.raises(EngineError, match=reason):
            engine.submit("ddim", 1)
        (report,) = engine.snapshot()["probes"][""]
        assert first.status == "failed" and not report["invariant"] and report["reason"]
    with Engine(own, capacity=1) as engine:
        assert engine.submit({"solver": "ddim", "steps": 3}, 3).result(WAIT).samples.shape[0] == 3


def test_one_that_mixes_large_batches_alone_is_found_in_the_first():
    own = network(lambda x, label: elementwise(x, label) - (x.mean() if len(x) > 5 else 0.0))
    with Engine(own, capacity=8) as engine:
        assert engine.submit("ddim", 4).result(WAIT).samples.shape[0] == 4
        with pytest.raises(EngineError, match="mixes the samples"):
            engine.submit("ddim", 8).result(WAIT)
        with pytest.raises(EngineError, match="mixes the samples"):
            engine.submit("ddim")


def test_a_size_is_tried_once():
    sizes = Counter()

    def counted(x, label):
        sizes[len(x)] += 1
        return elementwise(x, label)

    with Engine(network(counted), capacity=6) as engine:
        engine.probe("ddim")
        tried = dict(sizes)
        engine.probe("ddpm")
        assert dict(sizes) == tried and set(tried) == set(range(1, 7)) and max(tried.values()) <= 6
        engine.submit({"solver": "ddim", "steps": 3}, 6).result(WAIT)
    assert {size: sizes[size] - tried[size] for size in tried} == {6: 3} | dict.fromkeys(
        range(1, 6), 0
    )


def test_one_at_a_time_a_batch_norm_is_the_sampler():
    own = network(normed())
    with Engine(own, capacity=1) as engine:
        made = engine.submit({"solver": "ddim", "steps": 3}, 3).result(WAIT)
    assert replayed(own, made)
    alone = [Sampler(own, "ddim", 3).sample(seed=seed).samples for seed in range(3)]
    assert torch.equal(torch.cat(alone), made.samples)


def test_parts_of_a_call_are_made_again():
    """Where memory ran out calls were smaller."""

    def narrow(x, label, y):
        if len(x) > 3:
            raise torch.OutOfMemoryError("more than 3")
        return placed(x, label, y)

    own = conditional(narrow)
    with Engine(own, capacity=4) as engine:
        made = results(engine)
    sizes = {size for result in made for s in result.recipe["calls"] for r in s for size in r[1::2]}
    assert sizes <= {1, 2, 3} and len(sizes) > 1
    assert all(replayed(own, result) for result in made)


@pytest.mark.parametrize("batch", ["bucket", "fixed"])
def test_samples_that_were_called_apart_are_made_again(batch):
    """A network that fails where a class is there: the others are called one by one."""

    def choosy(x, label, y):
        if (y == 9).any():
            raise RuntimeError("no 9")
        return placed(x, label, y)

    own = conditional(choosy)
    with Engine(own, capacity=4, batch=batch) as engine:
        handles = [engine.submit(spec, **request) for spec, request in REQUESTS]
        with pytest.raises(RuntimeError, match="no 9"):
            handles[-1].result(WAIT)
        assert all(replayed(own, handle.result(WAIT)) for handle in handles[:-1])


def test_a_probe_of_what_is_unknown():
    with Engine(conditional()) as engine, pytest.raises(ValueError, match="takes no sedes"):
        engine.probe("ddim", condition=3, sedes=[1])


def test_a_probe_prints():
    with Engine(conditional(tailed), capacity=4) as engine:
        found = engine.probe("ddim", condition=3)
        assert engine.snapshot()["probes"][""] == [json.loads(json.dumps(found.report()))]
    assert str(found).splitlines() == [
        "network, 3x5x7 in float32 on cpu",
        "  the bits of an entry alone  calls of 1",
        "  the same bits               calls of 2",
        "  the same bits               calls of 3",
        "  the same bits               calls of 4",
        "  the same bits               calls of 8",
        "  bits that depend on places  calls of 5-7",
    ]


def test_a_network_that_cannot_be_tried_is_recorded():
    """The probe's values suit not every network; its failure is nobody's."""

    def careful(x, label, y):
        if x.abs().max() > 6:
            raise ValueError("too large")
        return 0.1 * tailed(x, label, y)

    own = conditional(careful)
    spec = {"solver": "ddim", "steps": 3, "clip": (-1.0, 1.0)}
    with Engine(own, capacity=2) as engine:
        made = engine.submit(spec, condition=[1, 2]).result(WAIT)
        (report,) = engine.snapshot()["probes"][""]
    assert report["untried"] and not report["invariant"] and replayed(own, made)


def test_a_recipe_says_sizes_to_the_command_line(capsys, tmp_path):
    """`--recipe` calls the network as the engine did."""
    digits, spec = zoo.load_network("digits"), {"solver": "ddim", "steps": 2}
    with Engine(digits, capacity=3, batch="fixed") as engine:
        made = engine.submit(spec, condition=[1, 2], guidance=2.0).result(WAIT)
    files.write(tmp_path / "made.png", made)
    again = tmp_path / "again.safetensors"
    run(capsys, "sample", "--recipe", tmp_path / "made.png", "--out", again)
    from safetensors.torch import load_file

    assert made.recipe["bucket"] >= 6
    assert torch.equal(load_file(again)["samples"], made.samples)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"calls": [[[1, 4]]]}, r"calls\[0\] has the run \[1, 4\]"),
        ({"calls": [[[1, 4, 4]]]}, "each place below its size"),
        ({"calls": [[[0, 4, 1]]]}, "each place below its size"),
        ({"calls": [[[1, 1 << 17, 0]]]}, "no size above 65536"),
        ({"calls": [[[10**12, 4, 1]]]}, "1000000000000 calls of 1000000000000 entries"),
        ({"bucket": 0}, "bucket=0"),
        ({"bucket": 10**9}, "bucket=1000000000: entries of a call of the network, from 1 to 65536"),
        ({"calls": [[[2, 4, 1]]]}, "2 calls of 2 entries and the sample makes 3 of 3"),
        ({"calls": [[[3, 4, 1, 4, 2]]]}, "3 calls of 6 entries"),
        ({"calls": [[[3, 4, 1]]] * 2}, "of 2 samples and 1 are made"),
        ({"calls": [[[3, 4, 1]]], "bucket": 4}, "give one"),
    ],
)
def test_sizes_that_make_no_sense(wrong, message):
    own = network(elementwise)
    recipe = Sampler(own, "ddim", 3).sample().recipe
    with pytest.raises(ValueError, match=message):
        Sampler.replay(own, recipe | wrong)
    with pytest.raises(ValueError, match=message):
        Sampler(own, "ddim", 3).sample(**wrong)


def test_an_engine_takes_no_sizes():
    with Engine(network(elementwise)) as engine, pytest.raises(ValueError, match="belong to a rep"):
        engine.submit("ddim", bucket=4)


def test_recipes_of_before_say_no_sizes():
    own = network(elementwise)
    made = Sampler(own, "ddim", 3).sample(2)
    before = {k: v for k, v in made.recipe.items() if k not in ("bucket", "calls")}
    assert torch.equal(Sampler.replay(own, before).samples, made.samples)


def test_sizes_with_all_else_that_a_recipe_needs():
    """Given states, a region, normals, a Brownian path and encodings, in calls of a size."""
    own, x = conditional(classes), torch.randn(2, 3, 5, 7)
    mask = torch.ones(3, 5, 7)
    mask[:, :2] = 0
    for spec, given in (
        ({"solver": "ddpm", "steps": 3}, {"mask": mask, "known": x}),
        ({"solver": "ddim", "steps": 3}, {"x": x, "start": 0.5}),
        ({"solver": "ddpm", "steps": 3}, {"noise": torch.randn(5, 1, 2, 3, 5, 7)}),
        ({"solver": "dpmpp_2m_sde", "steps": 3, "noise": "brownian"}, {}),
        ({"solver": "ddim", "steps": 3, "encoding": 1}, {"x": x}),
    ):
        with Engine(own, capacity=3, probe=False) as engine:
            made = engine.submit(spec, condition=[1, 2], **given).result(WAIT)
        needed = {k: v for k, v in given.items() if k in made.recipe["needs"]}
        assert made.recipe["calls"] and torch.equal(
            Sampler.replay(own, made.recipe, **needed).samples, made.samples
        )


@pytest.fixture
def small_chunks(monkeypatch):
    """Of a request of three samples the jobs are made two at a time."""
    monkeypatch.setattr("diffusion_engine.engine.ticket.CHUNK", 2)


@pytest.mark.parametrize("batch", ["bucket", "fixed"])
@pytest.mark.usefixtures("small_chunks")
def test_requests_under_load(executor, batch):
    check_load(executor, batch, requests=100, steps=12, digits=8)


@pytest.mark.usefixtures("small_chunks")
def test_recorded_requests_under_load():
    check_load("native", "bucket", requests=40, steps=8, digits=6)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("batch", ["bucket", "fixed"])
@pytest.mark.usefixtures("small_chunks")
def test_two_thousand_requests_of_each_network_under_load(any_executor, batch):
    check_load(any_executor, batch, requests=4000, steps=50, digits=2000)
