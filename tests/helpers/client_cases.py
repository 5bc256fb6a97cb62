"""Clients of both kinds with the same calls, and answers as a server packs them."""

import asyncio
import inspect
import json

import numpy as np
from safetensors.numpy import save

from diffusion_engine import AsyncClient, Client

RECIPE = {"seeds": [1, 2], "condition": [3, 4], "guidance": [1.0, 2.0], "bucket": 4, "calls": None}
ABOUT = {"id": "a", "model": "digits", "nfe": 4, "evaluations": 8, "finite": [True, True]}


def two():
    return np.random.default_rng(0).uniform(-1, 1, (2, 1, 4, 6)).astype(np.float32)


def packed(samples, seeds, recipe=RECIPE, about=ABOUT):
    """Samples as an answer."""
    tensors = {"samples": samples, "seeds": np.array(seeds, np.uint64).view(np.int64)}
    texts = {"diffusion_engine": json.dumps(recipe), "about": json.dumps(about)}
    return save(tensors, metadata=texts)


class Waited:
    """An AsyncClient, or what it gives, with methods that wait; iterated, it waits for each."""

    def __init__(self, thing, runner):
        self._thing, self._runner = thing, runner

    def __getattr__(self, name):
        return self._made(getattr(self._thing, name))

    def __call__(self, *given, **more):
        async def call():  # within the loop
            made = self._thing(*given, **more)
            return await made if inspect.isawaitable(made) else made

        return self._made(self._runner.run(call()))

    def __iter__(self):
        return self

    def __next__(self):
        async def following():
            return await anext(self._thing)

        try:
            return self._runner.run(following())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self):
        self._runner.run(self._thing.__aenter__())
        return self

    def __exit__(self, *error):
        self._runner.run(self._thing.__aexit__(*error))

    def _made(self, made):
        ours = callable(made) or type(made).__name__.startswith("Async")
        return Waited(made, self._runner) if ours else made


class Clients:
    """Makes clients of a kind, "Client" or "AsyncClient", and closes them."""

    def __init__(self, kind):
        self.kind, self._runner, self._made = kind, asyncio.Runner(), []

    def __call__(self, *given, **how):
        made = {"Client": Client, "AsyncClient": AsyncClient}[self.kind](*given, **how)
        self._made.append(made if self.kind == "Client" else Waited(made, self._runner))
        return self._made[-1]

    def close(self):
        for client in self._made:
            client.close()
        self._runner.close()
