"""Ranges: nothing while nobody listens, else pushed, popped and named as asked."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from diffusion_engine import Sampler, ScoreNetwork, trace
from diffusion_engine.ops import functional, launches
from diffusion_engine.processes import VP


class Recorder:
    """A listener that writes down what it is told."""

    def __init__(self):
        self.seen = []

    @contextmanager
    def __call__(self, name, payload):
        self.seen.append(("push", name, payload))
        try:
            yield
        finally:
            self.seen.append(("pop", name))


class FakeDomain:
    """nvtx's domain, where a tool is attached."""

    def __init__(self, name):
        self.name, self.made, self.seen = name, [], []

    def get_event_attributes(self, message, payload):
        self.made.append((message, payload))
        return message, payload

    def push_range(self, attributes):
        self.seen.append(("push", *attributes))

    def pop_range(self):
        self.seen.append(("pop",))


@pytest.fixture
def domain(monkeypatch):
    found = {}

    class Nvtx:
        get_domain = staticmethod(lambda name: found.setdefault(name, FakeDomain(name)))

    monkeypatch.setitem(sys.modules, "nvtx", Nvtx)
    trace.nvtx_range.cache_clear()
    trace.enable()
    yield lambda: found["diffusion_engine"]
    trace.disable()
    trace.nvtx_range.cache_clear()


def double(i):
    return 2 * i


def test_off_is_the_call_itself():
    assert trace.active() == ()
    assert trace.traced("step", double) is double
    assert trace.span("plan") is trace.span("capture")


def run(code, **variables):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=variables or None
    )
    assert done.returncode == 0, done.stderr


def test_off_imports_no_nvtx():
    run(
        "import sys; from diffusion_engine import Sampler, trace\n"
        "import diffusion_engine.cli.app, diffusion_engine.ops.functional, diffusion_engine.profiling\n"
        "assert 'nvtx' not in sys.modules and trace.active() == ()"
    )


@pytest.mark.parametrize("value, names", [("1", "('nvtx',)"), ("0", "()"), ("", "()")])
def test_the_environment_turns_it_on(monkeypatch, value, names):
    monkeypatch.setenv("DIFFUSION_ENGINE_NVTX", value)
    run(
        "import sys; from diffusion_engine import trace\n"
        f"assert trace.active() == {names}\n"
        "with trace.span('row', 3): assert trace.traced('step', lambda x: x + 1)(1) == 2\n"
        f"assert ('nvtx' in sys.modules) == bool({names})"
    )


def test_nvtx_ranges_nest_in_the_domain(domain):
    step, row = trace.traced("step", double), trace.traced("row", double, indexed=True)
    with trace.span("plan"):
        assert row(7) == 14 and step(3) == 6 and row(7) == 14
    assert domain().seen == [
        ("push", "plan", None),
        ("push", "row", 7), ("pop",),
        ("push", "step", None), ("pop",),
        ("push", "row", 7), ("pop",),
        ("pop",),
    ]  # fmt: skip
    assert domain().made == [("plan", None), ("row", 7), ("step", None)]  # each once, and kept


def test_a_range_ends_with_an_error(domain):
    def fail():
        raise KeyError("lost")

    with pytest.raises(KeyError):
        trace.traced("network", fail)()
    assert domain().seen == [("push", "network", None), ("pop",)]


def test_bound_calls_fall_silent_after_disable(domain):
    step = trace.traced("step", double)
    trace.disable()
    assert step(2) == 4 and trace.active() == ()
    assert trace.traced("step", double) is double


def test_two_listeners_hear_the_same(domain):
    recorder = Recorder()
    with trace.listening("recorder", recorder):
        assert trace.active() == ("nvtx", "recorder")
        assert trace.traced("row", double, indexed=True)(4) == 8
        again = trace.listening("recorder", recorder)
        with pytest.raises(RuntimeError, match="'recorder' listens already"), again:
            pass
    assert recorder.seen == [("push", "row", 4), ("pop", "row")]
    assert domain().seen == [("push", "row", 4), ("pop",)]


def test_watchers_hear_of_every_change():
    heard = []
    trace.watch(lambda: heard.append(trace.active()))
    try:
        with trace.listening("recorder", Recorder()):
            pass
    finally:
        trace._watchers.pop()
    assert heard == [("recorder",), ()]


def test_rows_are_ranges_even_if_the_sampler_ran_before():
    sampler = Sampler(ScoreNetwork(lambda x, t: 0.5 * x, VP(), (2,)), "ddim", 2)
    expected, recorder = sampler.sample(2).samples, Recorder()
    with trace.listening("recorder", recorder):
        assert torch.equal(sampler.sample(2).samples, expected)
    names = [name for kind, name, *_ in recorder.seen if kind == "push"]
    assert names == ["row", "step"] + ["row", "network", "step"] * 2


def test_fused_ops_are_ranges_even_if_they_ran_before():
    x = torch.randn(2, 8, 4, 4)
    q = torch.randn(1, 2, 5, 8)
    expected = functional.group_norm(x, 4)
    kept = len(launches._launches)
    recorder = Recorder()
    with trace.listening("recorder", recorder):
        assert torch.equal(functional.group_norm(x, 4), expected)
        functional.attention(q, q, q)
    assert kept and launches._launches == {}
    functional.group_norm(x, 4)
    names = [name for kind, name, *_ in recorder.seen if kind == "push"]
    assert names == ["group_norm", "attention"]
