"""Executors whose rows take as long as they say, on a clock that they move, and make what they say."""

from functools import partial

import torch

from diffusion_engine.executors import Batch, Executor
from diffusion_engine.executors.batch import plain
from diffusion_engine.executors.stages import Stages
from diffusion_engine.providers import auto, trial
from diffusion_engine.providers.candidates import Candidate


class Said(Stages):
    """A call moves the clock, and its outputs are off by a share of their largest element."""

    def __init__(self, network, executor, buffers):
        self._executor = executor
        super().__init__(network, buffers, "auto")

    def call(self, count):
        own = self._executor
        if not count:
            return super().call(count)
        own.calls += 1
        own.clock.now += own.seconds
        if own.fails is not None and own.fails(count):
            raise ValueError(f"{own.name} takes no {count}")
        outs = super().call(count)
        return [out + own.error * out.abs().max() for out in outs]


class Fake(Executor):
    """name     in recipes
    seconds  of a row
    error    of its outputs
    fails    says of the entries of a call whether it cannot be made
    opened   how many batches were
    """

    invariant = True

    def __init__(self, clock, name, seconds, error=0.0, fails=None, dtype=torch.float32):
        self.clock, self.name, self.seconds, self.error = clock, name, seconds, error
        self.fails, self.dtype = fails, dtype
        self.precision = None if dtype == torch.float32 else dtype
        self.opened, self.calls, self.forgotten = 0, 0, 0

    def objection(self, device):
        return None

    def open(self, network, capacity):
        self.opened += 1
        with plain():
            return Batch(capacity, partial(Said, network, self))

    def batch(self, network, capacity):
        return auto.nullcontext(self.open(network, capacity))

    def exact(self, network, given):
        return True

    def form(self, network):
        return None if self.name == "eager" else f"{self.name}/said"

    def threads_of(self, network):
        return 1

    def packed(self, network):
        return 77

    def forget(self, network):
        self.forgotten += 1


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Machine:
    """What is there to choose among, in the order of being simple."""

    def __init__(self, monkeypatch):
        self.clock, self.found = Clock(), []
        monkeypatch.setattr(trial, "clock", self.clock)
        monkeypatch.setattr(auto, "candidates", lambda *_: list(self.found))

    def has(self, **found):
        """seconds of a row by name, or (seconds, what else a Fake is), or why there is none."""
        self.found = [self._of(name, given) for name, given in found.items()]
        return [one.executor for one in self.found]

    def _of(self, name, given):
        if isinstance(given, str):
            return Candidate(name, torch.float32, None, given)
        seconds, how = given if isinstance(given, tuple) else (given, {})
        made = Fake(self.clock, name, seconds, **how)
        return Candidate(name, made.dtype, made)
