"""How the fastest form of a network is chosen."""

import accelerate_cases as cases
import pytest
import torch

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.accelerate import accelerate, choose
from diffusion_engine.processes import VP

choose_fused, net, example = cases.choose_fused, cases.net, cases.example


def test_the_example_has_the_batch_that_runs(net, monkeypatch):
    monkeypatch.setattr(choose, "BUDGET", 1e9)
    monkeypatch.setattr(choose, "ROUNDS", 1)
    own = ScoreNetwork(net, VP(), (3, 8, 8))
    for most in (1, 6, 9):
        assert (
            Sampler(own, "ddim", steps=2, accelerate=True, batch_size=most).accelerated.batch
            == most
        )
    monkeypatch.setattr(choose, "BUDGET", 0.0)
    fast = Sampler(own, "ddim", steps=2, accelerate=True, batch_size=9)
    assert fast.accelerated.batch == 1 and "One call of 1: " in str(fast.accelerated)


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
    monkeypatch.setattr(choose.time, "perf_counter", lambda: now[0])
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
