"""Requests that come and go at random, and what is left of them: prints it as a line of JSON.

A program of its own, because memory is the process's:

    python tests/helpers/engine_leaks.py 10000

Threads change places every 10 microseconds.
"""

import gc
import json
import random
import sys
import threading
from pathlib import Path

import torch
from engine_cases import TIMEOUT, until

from diffusion_engine import ScoreNetwork
from diffusion_engine.engine import Engine
from diffusion_engine.processes import VP

QUEUED = 1000
OPEN = threading.Event()


def half(x, label):
    assert OPEN.wait(TIMEOUT)
    return 0.5 * x


def memory():
    """Resident bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def tensors():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def cancels(engine, count, seed=0):
    """So many requests that are cancelled at a random moment, from two threads; how they ended."""
    ended, lock = {}, threading.Lock()

    def work(order):
        for _ in range(count // 2):
            steps, n = order.choice((1, 2, 3, 20)), order.choice((1, 1, 1, 3, 9))
            handle = engine.submit(
                {"solver": order.choice(("ddim", "ddpm", "heun")), "steps": steps}, n,
                key=str(order.randrange(4)), priority=order.randrange(3), preview=order.randrange(3),
                deadline=order.choice((None, 3600.0)),
            )  # fmt: skip
            readers = [handle.events() for _ in range(order.randrange(3))]
            for _ in range(order.choice((0, 0, 1, 2, 5)) if readers else 0):
                if next(readers[0], None) is None:
                    break
            if order.random() < 0.95:
                handle.cancel()
            else:
                handle.result(TIMEOUT)
            with lock:
                ended[handle.status] = ended.get(handle.status, 0) + 1

    threads = [threading.Thread(target=work, args=(random.Random(seed + i),)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: still(engine))
    return ended


def queued(engine):
    """A thousand that wait at a time: how many did."""
    OPEN.clear()
    handles = [engine.submit({"solver": "ddim", "steps": 3}) for _ in range(QUEUED)]
    most = engine.snapshot()["queued"]
    OPEN.set()
    for handle in handles:
        handle.result(TIMEOUT)
    return most


def still(engine):
    found = engine.snapshot()
    return not (found["occupied"] or found["queued"] or found["running"])


def main(count):
    sys.setswitchinterval(1e-5)
    threads = threading.active_count()
    with Engine(ScoreNetwork(half, VP(), (2,)), 4, max_queue=2 * QUEUED) as engine:
        OPEN.set()
        cancels(engine, 400)
        queued(engine)
        before, kept = memory(), tensors()
        ended = cancels(engine, count, 7)
        most = queued(engine)
        left = tensors() - kept
        grown = memory() - before
        found = engine.snapshot()
        for seed in range(50):
            engine.submit({"solver": "ddim", "steps": 1000}, seed=seed)
        engine.close(drain=False)
    report = {name: found[name] for name in ("submitted", "done", "cancelled", "failed")}
    report |= {"ended": ended, "queued": most, "tensors": left, "grown": grown}
    report |= {"threads": threading.active_count() - threads, "closed": still(engine)}
    print(json.dumps(report))


if __name__ == "__main__":
    main(int(sys.argv[1]))
