"""Requests that are on their way while something happens to a server, and what became of each."""

import threading

import numpy as np
from fault_networks import SLOW, harmless
from served import until

from diffusion_engine import Sampler
from diffusion_engine.client import ClientError


class Load:
    """So many requests at a time, each in a thread, taken by the server when this is made.

    steps  of each: a step of a slow class takes a fiftieth of a second
    """

    def __init__(self, server, count=4, steps=40, label=SLOW, retries=0):
        self.count, self.steps, self.label, self.made = count, steps, label, {}
        self._client = server.client(retries=retries)
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(count)]
        for thread in self._threads:
            thread.start()

        def taken():
            found = server.counts()
            return found["requests_waiting"] + found["requests_running"] >= count or self.made

        until(taken, 60, server.said)
        assert not self._errors(), self.made

    def _ask(self, seed):
        about = {"model": "faulty", "seed": seed, "condition": self.label}
        try:
            self.made[seed] = self._client.sample("ddim", steps=self.steps, **about).samples[0]
        except ClientError as error:
            self.made[seed] = error

    def wait(self, seconds=120.0):
        """Until each has ended: the samples, and the errors."""
        until(lambda: len(self.made) == self.count, seconds, lambda: f"{self.made}")
        for thread in self._threads:
            thread.join()
        self._client.close()
        errors = self._errors()
        samples = {seed: made for seed, made in self.made.items() if seed not in errors}
        own = alone(list(range(self.count)), self.steps, self.label)
        wrong = [seed for seed, made in samples.items() if not np.array_equal(made, own[seed])]
        assert not wrong, f"the samples of seeds {wrong} have other bits"
        return samples, errors

    def _errors(self):
        return {seed: made for seed, made in self.made.items() if isinstance(made, Exception)}

    def check_all_made(self, seconds=120.0):
        """Nothing that was accepted is lost."""
        _, errors = self.wait(seconds)
        assert not errors, errors


def alone(seeds, steps, label=SLOW, solver="ddim"):
    """[n, *shape] without any server."""
    sampler = Sampler(harmless(), solver, steps)
    return sampler.sample(
        seeds=seeds, condition=[label] * len(seeds), progress=False
    ).samples.numpy()
