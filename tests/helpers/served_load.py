"""Random requests to a server of the digits, many at a time, each compared with the same one alone."""

import json
import random
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock

import numpy as np
import torch
from engine_draw import Draw, alone, kinds
from served import serving

from diffusion_engine import Sampler, zoo

KINDS = ("region", "image", "path", "tensor")  # of requests that go over HTTP
AT_ONCE = 16
GIVEN = ("x", "mask", "known", "noise")


@cache
def digits():
    return zoo.load_network("digits")


def check_load(folder, requests, steps, *flags, kill=(), exact=False):
    """Every result of so many requests is bit for bit that of its recipe, made alone; the recipes.

    steps  at most
    kill   after so many answers the worker is killed, and what it kept on disk removed
    exact  whether it is also that of a Sampler which is given the recipe's size of calls
    """
    draw = Draw(random.Random(requests), {("digits", None): digits()}, steps, kinds=KINDS)
    asked = [draw.request("digits") for _ in range(requests)]
    flags = ("--model", "digits", "--capacity", "4", *flags)
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # a network's bits depend on them
    with (
        serving(folder, *flags, environment=threads) as server,
        server.client(retries=20) as client,
    ):

        def ask(i):
            made = client.sample(**sent(asked[i]))
            with lock:
                done.append(i)
                if len(done) in kill:
                    server.wait_ready()  # after the one before
                    shutil.rmtree(folder / "cache", ignore_errors=True)
                    server.signal(signal.SIGKILL, "worker")
            return made

        done, lock = [], Lock()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            made = list(pool.map(ask, range(requests)))
        restarts = server.counts().get("worker_restarts_total", 0)
        server.wait_idle()
    assert restarts == len(kill), server.said()
    assert {kind for about in asked for kind in kinds(about)} >= {*KINDS}
    for about, one in zip(asked, made, strict=True):
        recipe = json.loads(json.dumps(one.recipe, allow_nan=False))
        again = Sampler.replay(digits(), recipe, **given(about, recipe))
        assert np.array_equal(one.samples, again.samples.numpy()), about["spec"]
        assert one.seeds == about["seeds"] and all(one.finite)
        if exact:
            by_itself = draw.sampler(about).sample(**alone(about), bucket=recipe["bucket"])
            assert torch.equal(by_itself.samples, again.samples), about["spec"]
    return [one.recipe for one in made]


def sent(about):
    """A drawn request as a client sends it."""
    own = {name: value for name, value in about.items() if name not in ("network", "key")}
    return own | {"model": about["network"]}


def given(about, recipe):
    """What a recipe needs beside itself."""
    return {name: about[name] for name in GIVEN if name in about and name in recipe["needs"]}
