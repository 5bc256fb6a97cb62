"""Requests to a service, and networks that workers load by "worker_cases:NAME"."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP
from diffusion_engine.workers import process
from diffusion_engine.workers.messages import Asked
from diffusion_engine.workers.supervisor import Supervisor

COUNT = itertools.count()
SHAPE = (2, 4, 4)
SPECS = (
    {"solver": "ddim", "steps": 4},
    {"solver": "unipc", "steps": 6},
    {"solver": {"name": "dpmpp_2m_sde", "options": {"eta": 0.5}}, "steps": 5},
    {"solver": "heun", "steps": 3, "guidance": 2.0},
)


def small(x, label, y):
    """Elementwise: its bits depend on no call."""
    return torch.tanh(x * (1.0 + 0.1 * y.to(x.dtype).view(-1, 1, 1, 1)))


def network(module=small, name="tiny"):
    return ScoreNetwork(module, VP(), SHAPE, null=10, classes=10, name=name)


def asked(number=0, model="tiny", **said):
    """A request, another for each number."""
    given = {
        "id": f"r{number}-{next(COUNT)}", "model": model, "spec": SPECS[number % len(SPECS)],
        "seeds": [3 * number + i for i in range(1 + number % 3)],
    }  # fmt: skip
    given["condition"] = [seed % 5 for seed in given["seeds"]]
    return Asked(**given | said)


def alone(request, module=small):
    """The samples that a Sampler makes of a request."""
    spec = dict(request.spec)
    solver = spec.pop("solver")
    options = {} if isinstance(solver, str) else solver["options"]
    name = solver if isinstance(solver, str) else solver["name"]
    sampler = Sampler(network(module), name, **spec, **options)
    given = {k: torch.from_numpy(v) for k, v in request.tensors.items()}
    for key in ("start", "guidance", "compose"):
        if (value := getattr(request, key)) is not None:
            given[key] = value
    given |= {} if request.condition is None else {"condition": request.condition}
    given |= {"noised": True} if request.noised else {}
    return sampler.sample(seeds=request.seeds, **given).samples.numpy()


def equal(made, request, module=small):
    """Whether a result has the bits that a Sampler alone makes."""
    return np.array_equal(made.samples, alone(request, module)) and made.seeds == request.seeds


def by_class(x, label, y):
    """As `small`; but class 9 ends the process, 8 hangs, 7 raises, and guided loses the device, 6 is not
    finite and 5 takes a while."""
    met = set(y.tolist())
    if 9 in met:
        os._exit(3)
    if 8 in met:
        time.sleep(1e6)
    if {7, 10} <= met:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if 7 in met:
        raise RuntimeError("/secret/place")
    if 5 in met:
        time.sleep(0.02)
    return small(x, label, y).where(y.view(-1, 1, 1, 1) != 6, torch.nan)


def greedy(x, label, y):
    """As `small`; class 9 takes memory until there is no more."""
    taken = []
    while (y == 9).any():
        taken.append(torch.empty(1 << 26))
    return small(x, label, y)


def tiny():
    return network()


def moody():
    """Its classes do what `by_class` says; class 4 and below are well."""
    return network(by_class)


def hungry():
    return network(greedy)


def flagged():
    """As `moody`, where a file is."""
    Path(os.environ["WORKER_CASES_FLAG"]).read_text()
    return moody()


def absent():
    raise FileNotFoundError("no weights here")


MODELS = {"tiny": "worker_cases:tiny"}
MOODY = {"tiny": "worker_cases:moody"}


@contextmanager
def supervisor(models=MODELS, devices=("cpu",), **said):
    """A Supervisor and the asyncio.Runner that it runs in. It is closed whatever happens, and nothing is
    left: no process, task, socket or folder."""
    options = {"capacity": 4} | said.pop("options", {})
    helpers, folder = str(Path(__file__).parent), Path(tempfile.mkdtemp())
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        path = os.pathsep.join(filter(None, (helpers, os.environ.get("PYTHONPATH"))))
        patch.setenv("PYTHONPATH", path)
        patch.setenv("OMP_NUM_THREADS", "1")
        # Of the sockets alone: pytest's own folder would be gone with this one.
        makes = SimpleNamespace(gettempdir=lambda: str(folder), mkdtemp=tempfile.mkdtemp)
        patch.setattr(process, "tempfile", makes)
        service = Supervisor(models, devices, options, **said)
        try:
            runner.run(service.start())
            yield service, runner
        finally:
            pids = [keeper.pid for keeper in service._keepers if keeper.pid]
            runner.run(closed(service))
            left = list(folder.glob("diffusion-engine-*"))
            shutil.rmtree(folder, ignore_errors=True)
            left += [pid for pid in pids if Path(f"/proc/{pid}").exists()]
            assert not left, left


async def closed(service):
    await service.close(0.0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def supervised(do, *given, **said):
    """What do(service) returns, on a Supervisor."""
    with supervisor(*given, **said) as (service, runner):
        return runner.run(asyncio.wait_for(do(service), 120))


async def made(service, request):
    return await (await service.submit(request)).result()


async def until(met, seconds=60):
    """Returns when met() holds."""
    async with asyncio.timeout(seconds):
        while not met():
            await asyncio.sleep(0.01)
