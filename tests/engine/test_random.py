"""Requests that come, are cancelled, read and awaited in any order, with failures among them: nothing that
was taken is lost, and what is done has the bits that it has alone."""

import asyncio
import random
import sys
import threading
from collections import deque
from functools import cache
from itertools import chain

import pytest
import torch
from engine_cases import TIMEOUT, Network, Poisoned, alone, plain
from engine_load import check_same, decoded
from executor_cases import CONDITIONAL, SHAPE
from tape import launches_are_recorded, taping
from torch import nn

from diffusion_engine import Decoder, Sampler
from diffusion_engine.engine import Cancelled, DeadlineMissed, Engine, EngineClosed, NonFinite
from diffusion_engine.native import Native

__all__ = ["launches_are_recorded"]
EXECUTORS = {"eager": lambda: "eager", "recorder": taping, "native": Native}
REQUESTS = {"eager": 25, "recorder": 25, "native": 15}  # of each thread
SOLVERS = ("ddim", "heun", "dpmpp_2m", "ddpm", "dpmpp_2m_sde")
STOCHASTIC = ("ddpm", "dpmpp_2m_sde")
POISON, NAN = 8, 7
# A thread that fails asks for nothing more, and the rest would pass.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
DECODER = Decoder(decoded, scale_factor=2.0)
ADAPTERS = {"louder": {"gain": torch.tensor([0.25])}}


@pytest.fixture(autouse=True)
def threads_change_places_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Gained(nn.Module):
    """A function of x, label and y, with a weight."""

    def __init__(self, of, gain=1.0):
        super().__init__()
        self.of = lambda *given: of(*given)  # shared by copies
        self.gain = nn.Parameter(torch.tensor([gain]))

    def forward(self, x, label, y):
        return self.of(x, label, y) * self.gain


@cache
def network_of(adapter):
    """What the engine runs, with the weights of the adapter."""
    return CONDITIONAL.with_module(Gained(plain, 1.0 if adapter is None else 1.25))


@cache
def alone_by(name):
    """The executor that makes requests alone."""
    return Native() if name == "native" else "eager"


@cache
def made_by(solver, steps, adapter, name):
    """What makes a request alone."""
    executor = alone_by(name)
    return Sampler(network_of(adapter), solver, steps, decoder=DECODER, executor=executor)


def normals(*shape):
    return torch.randn(*shape, *SHAPE, generator=torch.Generator().manual_seed(shape[-1]))


@cache
def given(n):
    """Normals for runs of up to 20 rows."""
    return normals(20, 3, n)


@cache
def region(n):
    """What n samples keep: of zeros and ones, and of what lies between."""
    mask, known = normals(2, n).unbind()
    return {"mask": (mask > 0).float(), "known": known}, {"mask": mask.sigmoid(), "known": known}


def asked(order, spoilt):
    """A request at random: its solver, steps and the rest; some that will fail."""
    n, labels = (
        order.choice((1, 1, 1, 2, 5)),
        POISON + 1 if spoilt and order.random() < 0.3 else NAN,
    )
    request = {
        "seeds": [order.randrange(50) for _ in range(n)],
        "condition": [order.randrange(labels) for _ in range(n)],
        "guidance": order.choice((1.0, 1.0, 2.0)),
    }
    solver, steps, between = order.choice(SOLVERS), order.randint(1, 6), order.randrange(2)
    if order.random() < 0.2:
        request["noise"] = order.choice((given(n), drawn, "brownian", wrong))
    if order.random() < 0.2:
        request |= region(n)[between]
    if order.random() < 0.2:
        request["adapter"] = "louder"
    mixed = isinstance(request.get("noise"), str) or ("mask" in request and between)
    if order.random() < 0.2 and not mixed:
        drawing = steps > 1 and solver in STOCHASTIC
        request["record"] = (*(("log_prob",) if drawing else ()), "trajectory", "noise")
    return solver, steps, request


def drawn(row, m, seeds):
    """Normals of a function."""
    own = [torch.Generator().manual_seed((s << 20) + (row << 2) + m) for s in seeds]
    return torch.stack([torch.randn(SHAPE, generator=one) for one in own])


def wrong(row, m, seeds):
    raise Poisoned("noise")


def told(handle, how):
    """Waits in one of the ways that there are; what is done, or why it is not."""
    try:
        if how == "await":
            return asyncio.run(asyncio.wait_for(awaited(handle), TIMEOUT))
        if how == "events":
            *_, last = handle.events(room=2)
            assert last.kind == handle.status
        return handle.result(TIMEOUT)
    except (Poisoned, NonFinite, Cancelled, DeadlineMissed) as error:
        return error


async def awaited(handle):
    return await handle


def check(found, solver, steps, request, spoilt, name="eager"):
    """Whether a request ended as it had to.

    name  of the executor
    """
    if isinstance(found, Cancelled):
        return True
    labels, noise = set(request["condition"]), request.get("noise")
    fails = noise is wrong or (spoilt and labels & {POISON, NAN})
    if isinstance(found, Exception) or fails:
        return bool(fails) and isinstance(found, (Poisoned, NonFinite))
    own = {name: value for name, value in request.items() if name != "adapter"}
    made = made_by(solver, steps, request.get("adapter"), name).sample(**own)
    check_same(found, made, request)
    return True


def work(engine, seed, count, spoilt, kept, drop):
    order = random.Random(seed)
    for _ in range(count):
        solver, steps, request = asked(order, spoilt)
        more = {
            "priority": order.randrange(3), "key": str(order.randrange(3)), "preview": order.randrange(3),
            "deadline": order.choice((None, None, 1e-3, 600.0)),
        }  # fmt: skip
        try:
            handle = engine.submit({"solver": solver, "steps": steps}, **request, **more)
        except DeadlineMissed:
            continue
        except EngineClosed:
            break
        readers = [handle.events(room=order.randrange(1, 5)) for _ in range(order.randrange(3))]
        if readers and order.random() < 0.5:
            next(readers[0])
        if order.random() < 0.2:
            handle.cancel()
        if order.random() < drop:
            kept.append((handle, solver, steps, request))
            continue
        found = told(handle, order.choice(("result", "await", "events")))
        kept.append((found, solver, steps, request))


def storm(engine, count, spoilt=False, drop=0.0):
    """Four threads that ask for so many requests each; what came of them. They are held against runs alone
    at the end: the stand-in for CUDA graphs records what any thread launches meanwhile."""
    kept = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=work, args=(engine, seed, count, spoilt, kept[seed], drop))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    return threads, kept


def serving(run, **how):
    """An engine of a function, with all that requests ask of it."""
    network = CONDITIONAL.with_module(Gained(run))
    return Engine(network, 4, decoder=DECODER, adapters=ADAPTERS, **how)


def ended(threads):
    for thread in threads:
        thread.join(2 * TIMEOUT)
        assert not thread.is_alive()


@pytest.mark.parametrize("batch", ["bucket", "fixed"])
@pytest.mark.parametrize("name", EXECUTORS)
def test_any_order(name, batch):
    network, spoilt = Network(), name == "eager"  # in a graph nothing raises and no value decides
    if spoilt:
        network.raises[POISON], network.room = (
            Poisoned("network"),
            7 if batch == "bucket" else 1 << 30,
        )
        network.nan.add(NAN)
    how = {"batch": batch, "executor": EXECUTORS[name]()}
    with serving(network.run if spoilt else plain, **how) as engine:
        threads, kept = storm(engine, REQUESTS[name], spoilt)
        ended(threads)
    found = engine.snapshot()  # of an engine that has seen the last cancel
    assert not [one for one in chain(*kept) if not check(*one, spoilt, name)]
    assert found["submitted"] == found["done"] + found["failed"] + found["cancelled"]
    assert (found["occupied"], found["queued"], found["running"]) == (0, 0, 0)


def test_one_that_leaves_as_it_comes():
    """After the engine has looked for who came, and before it lets go of who left."""

    class Late(deque):
        def __len__(self):
            if not late:
                late.append(engine.submit("ddim", seeds=[1], condition=[1]))
                late[0].cancel()
            return super().__len__()

    late = [None]
    with Engine(Network().score, 2) as engine:
        engine.submit("ddim", seeds=[1], condition=[1]).result(TIMEOUT)
        engine._loop._gone = Late()
        late.clear()
        made = engine.submit("ddim", seeds=[1], condition=[1]).result(TIMEOUT)
        assert torch.equal(made.samples, alone("ddim", 20, seeds=[1], condition=[1]))
        assert late[0].status == "cancelled"


@pytest.mark.parametrize("drain", [True, False])
def test_an_end_in_the_middle(drain):
    """Every handle ends, in whatever state the engine was when it was closed."""
    network = Network()
    network.raises[POISON] = Poisoned("network")
    network.nan.add(NAN)
    with serving(network.run) as engine:
        threads, kept = storm(engine, 40, True, drop=1.0)
        while sum(map(len, kept)) < 40 and any(thread.is_alive() for thread in threads):
            threads[0].join(1e-3)
        engine.close(drain)
        ended(threads)
        for handle, solver, steps, request in chain(*kept):
            assert handle.status in ("done", "failed", "cancelled")
            assert check(told(handle, "result"), solver, steps, request, True)
    assert engine.snapshot()["occupied"] == 0
