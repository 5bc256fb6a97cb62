"""Requests over HTTP beside the same ones to an engine in this process: python -m benchmarks.runs.http.

The digits network, 16 seats. One request at a time: the time from asking to the samples. 64 at a time: images
a second. Both take turns in one run, with 1 and 2 threads that wait passively and actively, each setting in
processes of their own. The client writes and reads HTTP/1.1 by hand on kept connections: it shares the cores
with the server, and none of what it needs is the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter

import torch

from diffusion_engine import Engine
from diffusion_engine.zoo import load_network

from .. import results
from ..timing import Spread

SEATS, AT_ONCE = 16, 64
SETTINGS = [(threads, waiting) for threads in (1, 2) for waiting in ("passive", "active")]
EXECUTORS = ("eager", "native")
STEPS = (1, 20)
# What an answer holds: pictures in JSON, or the samples as they are.
FORMS = {"http, PNG": "application/json", "http, npz": "application/x-npz"}

Ask = Callable[[int, int], Awaitable[None]]  # of a seed, in so many steps


def main() -> None:
    given = parser().parse_args()
    if given.part:
        print(json.dumps(asyncio.run(measured(given))))
        return
    rows = [row for e in EXECUTORS for s in SETTINGS for row in apart(e, *s, given)]
    for i, row in enumerate(rows):
        results.show(row, i == 0, results.HTTP_SHOWN)
    where = "not saved" if given.no_save else f"wrote {results.replace(rows, results.HTTP)}"
    print(where)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runs.http", description=__doc__)
    made.add_argument("--requests", type=int, default=200, help="one at a time, of each contender")
    made.add_argument("--load", type=int, default=512, help="requests that come 64 at a time")
    made.add_argument("--repeats", type=int, default=3, help="of that load")
    made.add_argument("--no-save", action="store_true", help="print only")
    for name in ("part", "waiting"):
        made.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return made


def apart(
    executor: str, threads: int, waiting: str, given: argparse.Namespace
) -> list[results.Row]:
    """The rows of a setting, measured in a process whose threads wait so."""
    words = [
        "--part", executor, "--waiting", waiting, "--requests", str(given.requests),
        "--load", str(given.load), "--repeats", str(given.repeats),
    ]  # fmt: skip
    own = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": waiting}
    command = [sys.executable, "-m", "benchmarks.runs.http", *words]
    done = subprocess.run(
        command, env=os.environ | own, stdout=subprocess.PIPE, check=True, text=True
    )
    rows: list[results.Row] = json.loads(done.stdout)
    return rows


async def measured(given: argparse.Namespace) -> list[results.Row]:
    with served(given.part) as port, engine(given.part) as own:
        lines = {name: Connections(port, form) for name, form in FORMS.items()}
        asks: dict[str, Ask] = {"in process": in_process(own)}
        asks |= {name: line.ask for name, line in lines.items()}
        for ask in asks.values():  # what is compiled, measured and allocated at first
            await at_once(ask, AT_ONCE, 4)
        rows = []
        for steps in STEPS:
            rows += await latency(asks, steps, given.requests)
        rows += await throughput(asks, STEPS[-1], given.load, given.repeats)
        for line in lines.values():
            line.close()
    about = {"executor": given.part, "waiting": given.waiting}
    cpu = torch.device("cpu")
    return [results.row(cpu, results.HTTP_KEYS, **about | row) for row in rows]  # type: ignore[arg-type]


async def latency(asks: dict[str, Ask], steps: int, requests: int) -> list[results.Row]:
    """One request at a time, of each contender in turn."""
    took: dict[str, list[float]] = {name: [] for name in asks}
    for seed in range(requests):
        for name, ask in list(asks.items())[:: 1 if seed % 2 else -1]:
            began = perf_counter()
            await ask(seed, steps)
            took[name].append(perf_counter() - began)
    spreads = {name: Spread.of(seconds) for name, seconds in took.items()}
    base = spreads["in process"].median
    return [
        {
            "part": "one at a time",
            "contender": name,
            "steps": steps,
            "requests": requests,
            "p50_ms": spread.median / 1e3,
            "p20_ms": spread.p20 / 1e3,
            "p80_ms": spread.p80 / 1e3,
            "over_ms": (spread.median - base) / 1e3,
        }
        for name, spread in spreads.items()
    ]


async def throughput(
    asks: dict[str, Ask], steps: int, requests: int, repeats: int
) -> list[results.Row]:
    """So many at a time, of each contender in turn."""
    took: dict[str, list[float]] = {name: [] for name in asks}
    for i in range(repeats):
        for name, ask in list(asks.items())[:: 1 if i % 2 else -1]:
            began = perf_counter()
            await at_once(ask, requests, steps)
            took[name].append(requests / (perf_counter() - began))
    base = median(took["in process"])
    return [
        {
            "part": f"{AT_ONCE} at a time",
            "contender": name,
            "steps": steps,
            "requests": requests,
            "images_s": median(found),
            "of_engine": median(found) / base,
            "repeats": repeats,
        }
        for name, found in took.items()
    ]


async def at_once(ask: Ask, requests: int, steps: int) -> None:
    """All of them, so many at a time: who is answered asks again."""
    seeds = iter(range(requests))

    async def client() -> None:
        for seed in seeds:
            await ask(seed, steps)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))


def in_process(engine: Engine) -> Ask:
    async def ask(seed: int, steps: int) -> None:
        spec = {"solver": "dpmpp_2m", "steps": steps}
        await engine.submit(spec, seeds=[seed], condition=seed % 10)

    return ask


class Connections:
    """Kept connections to a server, one a request that is open.

    form  what the answers hold, as Accept says it
    """

    def __init__(self, port: int, form: str) -> None:
        self._port, self._form = port, form
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, seed: int, steps: int) -> None:
        spec = {"solver": "dpmpp_2m", "steps": steps}
        body = json.dumps(
            {"model": "digits", "spec": spec, "seeds": [seed], "condition": [seed % 10]}
        )
        while self._idle and self._idle[-1][0].at_eof():  # the server ends those that nobody uses
            self._idle.pop()[1].close()
        if not self._idle:
            self._idle.append(await asyncio.open_connection("127.0.0.1", self._port))
        reader, writer = connection = self._idle.pop()
        writer.write(
            f"POST /v1/samples HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nAccept: {self._form}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        made = await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
        if not head.startswith("http/1.1 200"):
            raise RuntimeError(f"the server answered {head.splitlines()[0]}: {made[:500]!r}")
        self._idle.append(connection)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


@contextmanager
def engine(executor: str) -> Iterator[Engine]:
    with Engine(load_network("digits"), SEATS, executor=executor, max_queue=1024) as made:
        yield made


@contextmanager
def served(executor: str) -> Iterator[int]:
    """The port of a server in a process of its own, which ends with the block."""
    command = [sys.executable, "-m", "diffusion_engine.cli", "serve", "--port", "0"]
    command += ["--model", "digits", "--capacity", str(SEATS), "--executor", executor]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield int(child.stdout.readline().rpartition(":")[2].split("/")[0].split()[0])
    finally:
        child.terminate()
        child.wait(60)


if __name__ == "__main__":
    main()
