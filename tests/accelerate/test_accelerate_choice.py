"""How the fastest form of a network is chosen."""

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import accelerate_cases as cases
import pytest
import torch

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.accelerate import accelerate, choose, network
from diffusion_engine.choices import files, turns
from diffusion_engine.engine import Engine
from diffusion_engine.processes import VP

choose_fused, net, example = cases.choose_fused, cases.net, cases.example


@pytest.fixture
def own(net):
    return ScoreNetwork(net, VP(), (3, 8, 8))


@pytest.fixture
def timed(monkeypatch):
    """The sizes of the calls that forms are measured with."""
    sizes, seconds = [], network.seconds
    monkeypatch.setattr(network, "seconds", lambda *given: sizes.append(1) or seconds(*given))
    return sizes


def fast(own, **how):
    return Sampler(own, "ddim", 2, accelerate=True, **how)


def test_the_example_has_the_batch_that_runs(own, monkeypatch, cache):
    monkeypatch.setattr(choose, "LONG", 1e9)
    for i, n in enumerate((1, 6, 9)):
        monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(cache / str(i)))
        sampler = fast(own)
        assert sampler.accelerated is None
        sampler.sample(n)
        sampler.sample(1)
        assert sampler.accelerated.batch == n
    monkeypatch.setattr(choose, "LONG", 0.0)
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(cache / "long"))
    sampler = fast(own)
    sampler.ready(9)
    assert sampler.accelerated.batch == 1 and "One call of 1: " in str(sampler.accelerated)
    with Engine(ScoreNetwork(own.module, VP(), (3, 8, 8)), capacity=5, accelerate=True) as engine:
        monkeypatch.setattr(choose, "LONG", 1e9)
        engine.submit("ddim").result(60)
        assert engine._served[""].first.accelerated.batch == 5


def test_a_form_is_kept_by_size(own, timed):
    first = fast(own)
    result = first.sample(2)
    (file,) = files("forms")
    assert json.loads(file.read_text()) == {"2": "fused/aaaa"} and len(timed) == 1
    later = fast(own)
    assert torch.equal(later.sample(2).samples, result.samples)
    assert len(timed) == 1 and "Measured before; runs 'fused'" in str(later.accelerated)
    later.sample(5)  # a network has one form, whatever it was chosen for
    assert len(timed) == 1
    fast(own).sample(5)
    assert len(timed) == 2 and json.loads(file.read_text()).keys() == {"2", "5"}
    fast(ScoreNetwork(own.module, VP(), (3, 8, 10))).sample(2)
    assert len(timed) == 3


@pytest.mark.parametrize("found", ["", '{"2": "../x"}', '{"2": 3}', '{"2": "without norms"}'])
def test_a_damaged_file_is_as_none(own, timed, found):
    fast(own).sample(2)
    (file,) = files("forms")
    file.write_text(found)
    sampler = fast(own)
    sampler.sample(2)
    assert len(timed) == 2 and sampler.accelerated.times


def test_in_place_too(net, example, timed):
    done = accelerate(net, *example)
    done.restore()
    again = accelerate(net, *example)
    assert len(timed) == 1 and again.form == done.form and not again.times


@pytest.mark.parametrize("tile", [0, 2, 4])
@pytest.mark.parametrize("form", ["fused", "fused, channels_last"])
def test_a_recipe_names_the_form(own, tile, form, monkeypatch):
    """Whatever is the fastest where it is replayed."""
    cases.choose_form(monkeypatch, lambda forms: tile if tile in forms else 0)
    monkeypatch.setattr(network, "min", lambda times, key: form)
    result = fast(own).sample(3)
    recipe = json.loads(json.dumps(result.recipe))
    kind, place, name, tiles = recipe["network_form"].split("/")
    assert (kind, name) == ("accelerate", form) and place and set(tiles) - {"0"}
    for path in files("forms"):
        path.unlink()
    cases.choose_form(monkeypatch, max if tile == 0 else min)
    monkeypatch.setattr(network, "min", lambda times, key: "original")
    again = Sampler.replay(own, recipe)
    assert torch.equal(again.samples, result.samples) and again.recipe == recipe
    with Engine(own, capacity=3, accelerate=True) as engine:
        made = engine.submit({"solver": "ddim", "steps": 2}, 3).result(60)
    assert made.recipe["network_form"] is None


def test_an_engine_names_the_form(own):
    with Engine(own, capacity=3, accelerate=True) as engine:
        made = engine.submit({"solver": "ddim", "steps": 2}, 3).result(60)
    assert made.recipe["network_form"].startswith("accelerate/")
    assert torch.equal(Sampler.replay(own, made.recipe).samples, made.samples)


def test_a_form_that_cannot_be_replayed_here(own, monkeypatch):
    recipe = fast(own).sample(2).recipe
    form = recipe["network_form"]
    with pytest.raises(ValueError, match=rf"computed by {form} and is computed by torch here"):
        Sampler.replay(own, recipe, {"accelerate": False})
    with pytest.raises(
        ValueError, match="computed by accelerate/sm90/fused/aaaa and is computed by"
    ):
        Sampler.replay(own, recipe | {"network_form": "accelerate/sm90/fused/aaaa"})
    for name in ("fused/a", "without norms/aaaa"):
        other = form.rpartition("fused")[0] + name
        with pytest.raises(ValueError, match=f"in the form '{name}', which this one does not have"):
            Sampler.replay(own, recipe | {"network_form": other})
    with pytest.raises(ValueError, match="network_form"):
        Sampler.replay(own, recipe | {"network_form": "accelerate/avx2/../x"})
    with pytest.raises(ValueError, match="give True or False, or a form that a recipe names"):
        Sampler(own, accelerate="fused/xyz")
    again = Sampler.replay(own, recipe | {"network_form": None})
    assert again.recipe["network_form"] is None


def test_threads_that_share_a_sampler_choose_once(own, timed):
    sampler = fast(own)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda seed: sampler.sample(2, seed=seed), range(4)))
    assert len(timed) == 1 and len({one.recipe["network_form"] for one in made}) == 1


def test_copies_have_the_form(own, timed, monkeypatch, cache):
    sampler = fast(own)
    want = sampler.sample(2)
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(cache / "other"))
    for copied in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        made = copied.sample(2)
        assert torch.equal(made.samples, want.samples) and made.recipe == want.recipe
    assert len(timed) == 1


class Tape:
    """Records a call by keeping it."""

    def __init__(self):
        self.recorded = 0

    def objection(self, device):
        return None

    def warm_up(self, body):
        body()

    def record(self, body):
        self.recorded += 1
        return choose.partial  # only its `replay` is used, which the test sets


def test_replays_are_timed_where_graphs_are(monkeypatch):
    """The times are those of replays, made with the form in place, of which none is put in place again."""
    place, ran = [], []

    class Recorder(Tape):
        def record(self, body):
            now = place[-1]
            super().record(body)
            return type("Recording", (), {"replay": lambda self: ran.append(now)})()

    def prepare(name):
        place.append(name)
        return place.clear

    recorder = Recorder()
    monkeypatch.setattr(choose, "ROUNDS", 2)
    monkeypatch.setattr(choose, "BUDGET", 1e9)
    found = choose.seconds(["a", "b"], prepare, lambda: None, torch.device("cpu"), recorder)
    assert ran == ["a", "b", "a", "b"] and not place and set(found) == {"a", "b"}

    class Refuses(Recorder):
        def record(self, body):
            raise choose.Unrecordable("no")

    calls = []
    found = choose.seconds(
        ["a", "b"], prepare, lambda: calls.append(place[-1]), torch.device("cpu"), Refuses()
    )
    assert calls == ["a", "a", "b", "a", "b"] and not place and set(found) == {"a", "b"}


@pytest.mark.parametrize("took, rounds", [(0.01, choose.ROUNDS), (1.0, 2), (9.0, 1)])
def test_a_choice_ends_with_its_budget(took, rounds, monkeypatch):
    now, calls = [100.0], []

    def call():
        now[0] += took
        calls.append(took)

    monkeypatch.setattr(choose, "BUDGET", 3.0)
    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])
    found = choose.seconds(["a", "b"], lambda name: lambda: None, call, torch.device("cpu"))
    assert found == pytest.approx({"a": took, "b": took}) and len(calls) == 2 * rounds


def test_kinds_are_left_out_on_a_gpu(net, example):
    done = accelerate(net, *example)
    cpu, cuda = (
        choose.candidates(done.replacements, torch.device(name)) for name in ("cpu", "cuda")
    )
    assert set(cpu) == {"fused", "fused, channels_last"}
    without = "without winograd conv2d"
    assert {without, f"{without}, channels_last"} <= cuda.keys() - cpu.keys()
    assert not any(one.kind == "winograd conv2d" for one in cuda[without][0])
    alone = [one for one in done.replacements if one.kind == "winograd conv2d"]
    assert set(choose.candidates(alone, torch.device("cuda"))) == {"fused", "fused, channels_last"}
