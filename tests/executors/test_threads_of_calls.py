"""The threads of a network's calls: torch's own number, a given one, or the fastest; and what recipes say."""

import copy
import json
import multiprocessing
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from command import run
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.backends import torch_threads
from diffusion_engine.backends.torch_threads import on
from diffusion_engine.choices import files
from diffusion_engine.engine import Engine
from diffusion_engine.executors import Eager
from diffusion_engine.native import Native
from diffusion_engine.processes import VP

OWN = 3  # torch's number in these tests
SHAPE = (1, 4, 4)


@pytest.fixture(autouse=True)
def own_number():
    torch.set_num_threads(OWN)


@pytest.fixture
def timed(monkeypatch):
    """What a measurement finds, more threads to be the slower ones, and what it was asked."""
    asked = []

    def in_turns(counts, seconds, *_):
        assert all(seconds(count) > 0 for count in counts)
        asked.append(list(counts))
        return {count: 1.0 if count == 2 else 2.0 for count in counts}

    monkeypatch.setattr("diffusion_engine.executors.threads.in_turns", in_turns)
    return asked


class Told(nn.Module):
    """What it comes to depends on the number of threads, as sums may."""

    def __init__(self):
        super().__init__()
        self.ran = []  # (entries, threads) of its calls

    def forward(self, x, label):
        self.ran.append((len(x), torch.get_num_threads()))
        return x * (0.1 + 0.01 * torch.get_num_threads())


@pytest.fixture
def network():
    return ScoreNetwork(Told(), VP(), SHAPE, name="told")


def made(network, n=2, **how):
    return Sampler(network, "ddim", 2, **how).sample(n, seed=1)


def new_thread(call):
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture(params=["torch's libraries", "torch alone"])
def way(request, monkeypatch):
    if request.param == "torch alone":
        monkeypatch.setattr(torch_threads, "_setters", lambda: (None, int))
    return request.param


def test_a_number_ends_with_what_it_was_set_for(way):
    with on(2):
        assert torch.get_num_threads() == 2
        with on(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), on(1):
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == OWN


def test_a_thread_that_begins_meanwhile_has_torchs_own_number():
    with on(1):
        assert new_thread(torch.get_num_threads) == OWN


def products():
    """The number of threads that MKL and OpenMP have here."""
    text = torch.__config__.parallel_info()
    return {int(line.split(":")[1]) for line in text.splitlines() if "_max_threads()" in line}


@pytest.mark.skipif("mkl_get_max_threads" not in torch.__config__.parallel_info(), reason="no MKL")
def test_mkl_has_the_same_number():
    """Once torch.set_num_threads was called it does not follow OpenMP."""
    before = products()
    with on(1):
        assert products() == {1}
    assert products() == before
    with on(2):
        assert products() == {2}


def test_torchs_own_number_is_left_alone(network):
    result = made(network)
    assert {threads for _, threads in network.module.ran} == {OWN}
    assert result.recipe["threads"] is None


@pytest.mark.parametrize("threads", [1, 2])
def test_a_given_number(network, threads):
    result = made(network, threads=threads)
    assert {found for _, found in network.module.ran} == {threads}
    assert result.recipe["threads"] == threads and torch.get_num_threads() == OWN
    again = Sampler.replay(network, json.loads(json.dumps(result.recipe)))
    assert torch.equal(again.samples, result.samples) and again.recipe == result.recipe
    assert not torch.equal(made(network).samples, result.samples)


def test_it_is_measured_once_for_a_size_and_kept(network, timed):
    first = Sampler(network, "ddim", 2, threads="measured")
    result = first.sample(2, seed=1)
    assert timed == [[1, 2, 3]] and result.recipe["threads"] == {"2": 2}
    assert network.module.ran[-2:] == [(2, 2)] * 2
    first.sample(1), first.sample(2)
    assert len(timed) == 2
    (file,) = files("threads")
    assert json.loads(file.read_text()) == {"2": 2, "1": 2}
    later = made(ScoreNetwork(Told(), VP(), SHAPE), threads="measured")
    assert len(timed) == 2 and torch.equal(later.samples, result.samples)
    wider = ScoreNetwork(Told(), VP(), (1, 4, 5))
    made(wider, threads="measured")
    assert len(timed) == 3


def test_sizes_of_a_bucket_share_what_was_measured(network, timed):
    sampler = Sampler(network, "ddim", 2, threads="measured")
    assert sampler.sample(9).recipe["threads"] == {"10": 2}
    assert sampler.sample(10).recipe["threads"] == {"10": 2} and len(timed) == 1


@pytest.mark.parametrize("found", ["{", '{"2": 9}'])
def test_what_is_kept_and_cannot_be_is_measured_anew(network, timed, found):
    made(network, threads="measured")
    (file,) = files("threads")
    file.write_text(found)
    assert made(network, threads="measured").recipe["threads"] == {"2": 2} and len(timed) == 2


def test_a_recipe_of_several_parts_names_all(network, timed, monkeypatch):
    monkeypatch.setattr("diffusion_engine.executors.threads.fewest", lambda t: 1 + len(timed) % 2)
    result = Sampler(network, "ddim", 2, threads="measured").sample(5, batch_size=4)
    assert result.recipe["threads"] == {"1": 1, "4": 2}
    again = Sampler.replay(network, result.recipe, {"batch_size": 4})
    assert torch.equal(again.samples, result.samples) and again.recipe == result.recipe
    with pytest.raises(
        ValueError, match=r"for calls of 1, 4 entries, and this one has 5.*batch_size"
    ):
        Sampler.replay(network, result.recipe)
    again = Sampler.replay(network, result.recipe | {"threads": 2})
    assert torch.equal(again.samples[:4], result.samples[:4])


def test_a_replay_on_other_threads_is_refused(network):
    recipe = made(network, threads=2).recipe
    said = r"ran on 2 threads and runs on {} here.*threads None"
    for how, here in (
        ({"threads": 1}, "1 thread"),
        ({"executor": Eager()}, "torch's own number"),
        (
            {"executor": Eager(threads={1: 1, 2: 2})},
            r"threads by the entries of a call \(1 for 1, 2 for 2\)",
        ),
    ):
        with pytest.raises(ValueError, match=said.format(here)):
            Sampler.replay(network, recipe, how)
    again = Sampler.replay(network, recipe, {"executor": Eager(threads=2)})
    assert again.recipe == recipe
    objection = Eager(threads=2).objection(torch.device("cuda"))
    assert "of the CPU, and the network runs on cuda" in objection


def test_a_recipe_without_the_field_is_replayed_as_before(network):
    result = made(network)
    old = {name: value for name, value in result.recipe.items() if name != "threads"}
    assert torch.equal(Sampler.replay(network, old).samples, result.samples)
    again = Sampler.replay(network, old, {"threads": 2})  # which it leaves open
    assert again.recipe["threads"] == 2


@pytest.mark.parametrize("named", [0, 1.5, "many", {"0": 1}, {"2": 0}, [2], True])
def test_a_recipe_whose_threads_make_no_sense(network, named):
    recipe = made(network).recipe | {"threads": named}
    with pytest.raises(ValueError, match="threads"):
        Sampler.replay(network, recipe)


def test_samplers_with_other_numbers_at_once(network):
    """Each has its own, also where they begin in threads that are new to torch."""
    others = [ScoreNetwork(Told(), VP(), SHAPE) for _ in range(4)]
    together = threading.Barrier(4)

    def many(one, threads):
        together.wait()
        for _ in range(20):
            made(one, threads=threads)
        return torch.get_num_threads()

    with ThreadPoolExecutor(4) as pool:
        after = list(pool.map(many, others, [1, 2, 4, None]))
    ran = [{threads for _, threads in one.module.ran} for one in others]
    assert ran == [{1}, {2}, {4}, {OWN}] and after == [OWN] * 4


def test_threads_that_share_a_sampler_measure_once(network, timed):
    sampler = Sampler(network, "ddim", 2, threads="measured")
    with ThreadPoolExecutor(4) as pool:
        each = list(pool.map(lambda seed: sampler.sample(2, seed=seed).recipe, range(8)))
    assert len(timed) == 1 and all(recipe["threads"] == {"2": 2} for recipe in each)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_know_what_was_chosen(network, timed, copied, tmp_path, monkeypatch):
    """A worker that has no folder, too."""
    sampler = Sampler(network, "ddim", 2, threads="measured")
    sampler.sample(2)
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(tmp_path / "other"))
    other = copied(sampler)
    assert other.sample(2).recipe["threads"] == {"2": 2} and len(timed) == 1


def test_a_fork(network, timed):
    sampler = Sampler(network, "ddim", 2, threads="measured")
    want = sampler.sample(2, seed=1)
    queue = multiprocessing.get_context("fork").SimpleQueue()

    def child():
        queue.put((len(timed), sampler.sample(2, seed=1).samples.tolist()))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    measured, samples = queue.get()
    process.join(30)
    assert process.exitcode == 0 and measured == 1
    assert torch.equal(torch.tensor(samples), want.samples)


def test_an_engine_names_it(network, timed):
    with Engine(network, capacity=2, threads="measured") as engine:
        result = engine.submit({"solver": "ddim", "steps": 2}, 2, seed=1).result(60)
    assert result.recipe["threads"]["2"] == 2
    assert torch.equal(Sampler.replay(network, result.recipe).samples, result.samples)
    with Engine(network, capacity=2, threads=1, batch="fixed") as engine:
        result = engine.submit({"solver": "ddim", "steps": 2}, 1, seed=1).result(60)
    assert result.recipe["threads"] == 1 and network.module.ran[-1] == (2, 1)
    assert torch.equal(Sampler.replay(network, result.recipe).samples, result.samples)


def test_a_saved_plan(network):
    plan = Sampler(network, "ddim", 2).plan()
    result = Sampler.from_plan(network, plan, threads=2).sample(2)
    again = Sampler.replay(network, result.recipe, plan=plan)
    assert torch.equal(again.samples, result.samples) and again.recipe == result.recipe


def test_the_command_line(capsys, tmp_path):
    asked = ("sample", "--n", 1, "--class", "3", "--steps", 2)
    once, again = tmp_path / "once.npz", tmp_path / "again.npz"
    said = run(capsys, *asked, "--threads", 2, "--out", once, "--json")[0]
    assert json.loads(said)["recipe"]["threads"] == 2
    said = run(capsys, "sample", "--recipe", once, "--out", again, "--json")[0]
    assert json.loads(said)["recipe"]["threads"] == 2
    said = run(capsys, *asked, "--threads", "measured", "--out", again, "--json")[0]
    assert json.loads(said)["recipe"]["threads"].keys() == {"2"}
    report = json.loads(run(capsys, "doctor", "--json")[0])
    assert report["choices"]["threads"] == 1


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two", True, 10**6, {}, {0: 1}, {1: 0}])
@pytest.mark.parametrize("executor", ["eager", "native"])
def test_numbers_that_make_no_sense(network, executor, threads):
    with pytest.raises(ValueError, match="threads="):
        made(network, executor=executor, threads=threads)


def test_threads_go_with_the_name_of_an_executor(network):
    with pytest.raises(ValueError, match=r"Eager\(threads=2\)"):
        Sampler(network, executor=Eager(), threads=2)
    with pytest.raises(ValueError, match=r"a graph's network runs on the GPU.*leave threads out"):
        Sampler(network, executor="graph", threads=2)
    assert Sampler(network, executor="native", threads="measured").executor.threads is None
    assert Native(threads={3: 2}).threads == {3: 2}
