"""A server under a mixed load for minutes: python -m benchmarks.soak --minutes 10.

So many requests at a time of the digits network: solvers, step counts, guidance, streams with previews; one
in 20 is given up in some way, and one in 100 has a body that is wrong. Every minute has its row, and so
has the whole: what became of requests, latency, the memory of the server's processes. Some of the results are
made again alone, afterwards, and compared bit for bit.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from diffusion_engine import AsyncClient, Sampler, ScoreNetwork
from diffusion_engine.client import ClientError, Samples
from diffusion_engine.zoo import load_network

from . import results
from .timing import Others

AT_ONCE, PERIOD = 16, 997  # requests, and those until they repeat
KEPT = 64  # results that are made again
CANCELLED, BAD = 0.05, 0.01
SOLVERS = ("ddim", "dpmpp_2m", "unipc", "euler_ancestral", "dpmpp_2m_sde", "heun")
BODIES = (
    b"", b"{", b"[]", b"\xff\xfe", b'{"seedz": 1}', b'{"spec": {"steps": 0}}', b'{"n": 1e99}',
    b'{"condition": 99}', b'{"model": "none"}', b'{"seeds": [-1]}', b'{"n": NaN}', b'{"tensors": "AAAA"}',
)  # fmt: skip


def main() -> None:
    given = parser().parse_args()
    rows = asyncio.run(soak(given))
    for i, row in enumerate(rows):
        results.show(row, i == 0, results.SOAK_SHOWN)
    print("not saved" if given.no_save else f"wrote {results.replace(rows, results.SOAK)}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    made.add_argument("--minutes", type=float, default=10.0)
    made.add_argument("--requests", type=int, default=AT_ONCE, help="at a time")
    made.add_argument("--batch", default="fixed", choices=("fixed", "bucket"))
    made.add_argument("--no-save", action="store_true", help="print only")
    return made


@dataclass
class Part:
    """What happened in a minute.

    fates      done, cancelled, bad, refused, failed
    latencies  seconds of plain requests
    images     samples that were done
    memory     MB of the server and of its workers, at the end
    """

    fates: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    images: int = 0
    memory: tuple[float, float] = (0.0, 0.0)

    def quantile(self, q: float) -> float | None:
        """Milliseconds."""
        return float(np.percentile(self.latencies, q)) * 1e3 if self.latencies else None


class Load:
    """Requests that repeat, so that every minute has the same mix."""

    def __init__(self, client: AsyncClient, http: httpx.AsyncClient, seed: int = 0) -> None:
        self._client, self._http, self._rng = client, http, random.Random(seed)
        self._asked = [self._draw() for _ in range(PERIOD)]
        self._turns = itertools.count()
        self.part = Part()
        self.kept: list[Samples] = []
        self._seen = 0

    def _draw(self) -> tuple[str, dict[str, Any]]:
        """What is done with a request, and the request."""
        rng = self._rng
        n = rng.choice((1, 1, 1, 2, 3))
        about = {
            "spec": rng.choice(SOLVERS), "steps": rng.choice((2, 4, 6, 8, 12, 20)), "n": n,
            "guidance": rng.choice((1.0, 1.0, 2.0)), "condition": [rng.randrange(10) for _ in range(n)],
            "priority": rng.randrange(2),
        }  # fmt: skip
        turn = rng.random()
        if turn < BAD:
            return "bad", {"content": rng.choice(BODIES)}
        if turn < BAD + CANCELLED:
            return rng.choice(("leave", "delete", "hang_up")), about
        return ("stream" if rng.random() < 0.2 else "sample"), about

    async def work(self, until: float) -> None:
        """Request after request."""
        while time.monotonic() < until:
            what, about = self._asked[next(self._turns) % PERIOD]
            try:
                fate = await getattr(self, what)(**about)
            except ClientError as error:
                fate = "refused" if error.status in (429, 503) else "failed"
            self.part.fates[fate] += 1

    async def sample(self, **about: Any) -> str:
        began = time.monotonic()
        made = await self._client.sample(**about)
        self.part.latencies.append(time.monotonic() - began)
        return self._done(made)

    async def stream(self, **about: Any) -> str:
        async with self._client.stream(**about, preview=2) as events:
            async for event in events:
                if event.made is not None:
                    self._done(event.made)
        return "done"

    async def leave(self, **about: Any) -> str:
        async with self._client.stream(**about, preview=1) as events:
            for _ in range(self._rng.randrange(1, 5)):
                await anext(events)
        return "cancelled"

    async def delete(self, **about: Any) -> str:
        request = await self._client.submit(**about)
        await asyncio.sleep(self._rng.choice((0.0, 0.02)))
        await request.cancel()
        return "cancelled"

    async def hang_up(self, **about: Any) -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._rng.choice((0.005, 0.03))):
                await self._client.sample(**about)
        return "cancelled"

    async def bad(self, content: bytes) -> str:
        head = {"content-type": "application/json"}
        answer = await self._http.post("/v1/samples", content=content, headers=head)
        return "bad" if 400 <= answer.status_code < 500 and "error" in answer.json() else "failed"

    def _done(self, made: Samples) -> str:
        """Keeps some, each result with the same chance."""
        self.part.images += len(made.samples)
        self._seen += 1
        if len(self.kept) < KEPT:
            self.kept.append(made)
        elif (place := self._rng.randrange(self._seen)) < KEPT:
            self.kept[place] = made
        return "done"


async def soak(given: argparse.Namespace) -> list[results.Row]:
    """A row of each minute, and one of all."""
    count = max(1, round(given.minutes))
    seconds, parts = given.minutes * 60 / count, list[Part]()
    with serving(given.batch) as (process, address):
        async with (
            AsyncClient(address, retries=5) as client,
            httpx.AsyncClient(base_url=address) as http,
        ):
            load = Load(client, http)
            await asyncio.gather(
                *(load.work(time.monotonic() + 3.0) for _ in range(4))
            )  # first calls
            others, busy = Others(), cpu(process.pid)
            for _ in range(count):
                load.part = Part()
                until = time.monotonic() + seconds
                await asyncio.gather(*(load.work(until) for _ in range(given.requests)))
                load.part.memory = memory(process.pid)
                parts.append(load.part)
            total, idle, own = others.seconds()
            served = cpu(process.pid) - busy
    rows = [_row(given, minute=i + 1, **_about(part, seconds)) for i, part in enumerate(parts)]
    network = load_network("digits")
    wrong = sum(not made_again(network, one) for one in load.kept)
    share = Others.share_of(total, idle, own + served)
    checked = {"checked": len(load.kept), "wrong": wrong, "others": share}
    return [*rows, _row(given, minute="all", **_whole(parts, seconds), **checked)]


def _about(part: Part, seconds: float) -> dict[str, Any]:
    fates = {name: part.fates[name] for name in ("done", "cancelled", "bad", "refused", "failed")}
    server, worker = part.memory
    return fates | {
        "images_s": part.images / seconds, "p50_ms": part.quantile(50), "p99_ms": part.quantile(99),
        "server_mb": server, "worker_mb": worker,
    }  # fmt: skip


def _whole(parts: list[Part], seconds: float) -> dict[str, Any]:
    """Of all minutes; growth and drift are those after the first one, which warms up."""
    fates, latencies = Counter[str](), list[float]()
    for part in parts:
        fates += part.fates
        latencies += part.latencies
    whole = Part(fates, latencies, sum(part.images for part in parts), parts[-1].memory)
    found = _about(whole, seconds * len(parts))
    if len(parts) > 2:
        rest, third = [part.quantile(99) or 0.0 for part in parts[1:]], max(1, len(parts) // 3)
        first, last = np.mean(rest[:third]), np.mean(rest[-third:])
        found["growth_mb"] = sum(parts[-1].memory) - sum(parts[0].memory)
        found["p99_drift"] = float(last / first - 1.0)
    return found


def made_again(network: ScoreNetwork, made: Samples) -> bool:
    """Whether a result is bit for bit what its recipe gives alone."""
    again = Sampler.replay(network, json.loads(json.dumps(made.recipe)))
    return np.array_equal(made.samples, again.samples.numpy())


def _row(given: argparse.Namespace, **known: Any) -> results.Row:
    known |= {"at_once": given.requests, "batch": given.batch}
    return results.row(torch.device("cpu"), results.SOAK_KEYS, **known)


@contextmanager
def serving(batch: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server of the digits with as many threads as torch has here, and its address."""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        words = [
            "serve",
            "--model",
            "digits",
            "--port",
            "0",
            "--batch",
            batch,
            "--ready-file",
            str(ready),
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "diffusion_engine.cli", *words],
            env=os.environ | threads, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            while not ready.exists():
                if process.poll() is not None:
                    raise RuntimeError(f"the server did not start: exit code {process.returncode}")
                time.sleep(0.05)
            yield process, json.loads(ready.read_text())["address"]
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()  # its workers end with it
                process.wait()


def family(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def memory(pid: int) -> tuple[float, float]:
    """MB in memory of a process, and of its children."""
    page = os.sysconf("SC_PAGE_SIZE")
    each = [
        int(Path(f"/proc/{one}/statm").read_text().split()[1]) * page / 1e6 for one in family(pid)
    ]
    return each[0], sum(each[1:])


def cpu(pid: int) -> float:
    """Seconds of a processor that a process and its children had."""
    texts = [
        Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in family(pid)
    ]
    return sum(int(text[11]) + int(text[12]) for text in texts) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
