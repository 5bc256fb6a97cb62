"""A network that tests hold, spoil and count, its engines, and what a request gives alone."""

import threading
import time
from contextlib import contextmanager
from functools import cache

import torch
from executor_cases import CONDITIONAL, SHAPE
from executor_cases import classes as plain

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.engine import Engine
from diffusion_engine.processes import VP

TIMEOUT = 100.0  # a first capture loads torch._dynamo, from a cold disk in half a minute


class Poisoned(Exception):
    """What the network raises of a label."""


class Network:
    """The elementwise network of classes, whose samples' bits are independent of their batch.

    calls   the labels y of each call's entries, in order
    raises  by label: an exception for calls in which it is
    nan     labels whose outputs are NaN
    room    entries of a call that memory suffices for
    """

    def __init__(self, **options):
        self.calls, self.raises, self.nan, self.room = [], {}, set(), 1 << 30
        self._open, self._inside = threading.Event(), threading.Event()
        self._open.set()
        self.score = ScoreNetwork(self.run, VP(), SHAPE, null=10, classes=10, **options)

    def run(self, x, label, y):
        self._inside.set()
        if not self._open.wait(TIMEOUT):
            raise TimeoutError("nobody opened the network")
        labels = y.tolist()
        self.calls.append(labels)
        if len(labels) > self.room:
            raise torch.OutOfMemoryError(f"{len(labels)} entries are too many")
        for poisoned in labels:
            if poisoned in self.raises:
                raise self.raises[poisoned]
        out = plain(x, label, y)
        for bad in self.nan:
            out[y == bad] = torch.nan
        return out

    @contextmanager
    def held(self, engine, steps=1, **request):
        """The engine stands within a call of the request that this gives, until the end."""
        self._open.clear()
        self._inside.clear()
        try:
            handle = engine.submit(spec(steps=steps), **{"seeds": [1], "condition": [9], **request})
            assert self._inside.wait(TIMEOUT)
            yield handle
        finally:
            self._open.set()

    def order(self):
        """The labels of calls, each where it came first."""
        return list(dict.fromkeys(label for labels in self.calls for label in labels))


def engine_of(network, capacity=4, probe=False, **options):
    """An engine that calls the network for samples alone."""
    return Engine(network.score, capacity, probe=probe, **options)


@contextmanager
def running(capacity=4, network=None, **options):
    """A network and its engine."""
    network = network or Network()
    with engine_of(network, capacity, **options) as engine:
        yield network, engine


def spec(solver="ddim", steps=1, **more):
    return {"solver": solver, "steps": steps, **more}


def one(label, seed=None, **more):
    """What a request of one sample says."""
    return {"seeds": [label if seed is None else seed], "condition": [label], **more}


@cache
def sampler(solver, steps):
    return Sampler(CONDITIONAL, solver, steps)


def alone(solver="ddim", steps=1, **request):
    """The samples of a request without any engine."""
    return sampler(solver, steps).sample(progress=False, **request).samples


def same(handle, solver="ddim", steps=1, **request):
    return torch.equal(handle.result(TIMEOUT).samples, alone(solver, steps, **request))


def until(condition):
    """Waits for what nobody announces."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(1e-4)
