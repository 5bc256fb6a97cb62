"""What to expect of 10, 100 and 1,000 GPUs: python -m benchmarks.runs.queue_simulation.

No GPU is measured here. A network is a time of a row, first entry and each further one, and a mix of
requests; the queue in front of the engines is simulated event by event (queue_model.py). The model is held
against an engine that was measured, of which results/serve.csv has the rows.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from .. import results
from .queue_model import ROUTINGS, Request, Simulation, poisson, quantile

SEATS = 16
GPUS = (10, 100, 1000)
LOADS = (0.5, 0.8, 0.9, 0.95)
NODE = 8  # GPUs that are lost together
START, INTERVAL = (
    60.0,
    10.0,
)  # seconds until a new replica serves, and between two looks of the autoscaler
BULK, PER_SHARD, STEPS = 1_000_000, 256, 20

Draw = Callable[[random.Random], tuple[int, float]]


@dataclass(frozen=True)
class Network:
    """A network, as the queue sees it.

    first, further  seconds of a row of one entry, and of each entry more
    kinds           (weight, rows, entries) of its requests
    """

    name: str
    first: float
    further: float
    kinds: tuple[tuple[float, int, float], ...]

    def row_s(self, entries: float) -> float:
        return self.first + self.further * (entries - 1)

    def draw(self, made: random.Random) -> tuple[int, float]:
        weights = [weight for weight, _, _ in self.kinds]
        _, rows, entries = made.choices(self.kinds, weights)[0]
        return rows, entries

    @property
    def rate(self) -> float:
        """Requests a second of one replica whose seats are always full."""
        total = sum(weight for weight, _, _ in self.kinds)
        rows = sum(w * r for w, r, _ in self.kinds) / total
        entries = sum(w * r * e for w, r, e in self.kinds) / total / rows
        return SEATS / rows / self.row_s(SEATS * entries)


# Assumed, not measured: a network of pixels whose calls cost little, and one of latents whose entries do.
# Few steps without guidance, twenty and fifty with it.
KINDS = ((3.0, 4, 1.0), (5.0, 20, 2.0), (2.0, 50, 2.0))
NETWORKS = (
    Network("small", 0.004, 0.0004, KINDS),
    Network("large", 0.030, 0.012, KINDS),
)


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runs.queue_simulation")
    made.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    made.add_argument("--no-save", action="store_true", help="print only")
    given = made.parse_args()
    rows = []
    for part in given.parts:
        for known in PARTS[part]():
            rows.append(row(part=part, **known))
            results.show(rows[-1], len(rows) == 1, results.SCALING_SHOWN)
    if not given.no_save:
        kept = [r for r in committed() if r["part"] not in given.parts]
        print(f"wrote {results.replace(kept + rows, results.SCALING)}")


def committed() -> list[results.Row]:
    path = results.FOLDER / results.SCALING
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def row(**known: str | int | float | None) -> results.Row:
    return results.row(torch.device("cpu"), results.SCALING_KEYS, **known)


def about(found: list[Request], network: Network) -> dict[str, float]:
    """Latencies, and how often longer than alone on a replica."""
    took = [r.latency for r in found]
    slow = [r.latency / (r.rows * network.row_s(r.entries)) for r in found]
    return {
        "p50_s": quantile(took, 0.5), "p95_s": quantile(took, 0.95), "p99_s": quantile(took, 0.99),
        "slow_p50": quantile(slow, 0.5), "slow_p99": quantile(slow, 0.99),
        "wait_p99_s": quantile([r.wait for r in found], 0.99),
    }  # fmt: skip


def settled(found: list[Request], share: float = 0.2) -> list[Request]:
    """Those who came after the first part, when the seats had filled."""
    ordered = sorted(found, key=lambda r: r.at)
    return ordered[int(share * len(ordered)) :]


def assumed() -> Iterator[dict]:
    """What all else follows from."""
    yield {"quantity": "seats", "value": SEATS}
    yield {"quantity": "GPUs of a node", "value": NODE}
    yield {"quantity": "seconds until a new replica serves", "value": START}
    yield {"quantity": "seconds between two looks of the autoscaler", "value": INTERVAL}
    yield {"quantity": "steps of bulk generation", "value": STEPS}
    for network in NETWORKS:
        yield {"network": network.name, "quantity": "ms, first entry", "value": 1e3 * network.first}
        yield {
            "network": network.name,
            "quantity": "ms, each further",
            "value": 1e3 * network.further,
        }
        yield {"network": network.name, "quantity": "requests/s of a GPU", "value": network.rate}
        for weight, rows, entries in network.kinds:
            share = weight / sum(w for w, _, _ in network.kinds)
            yield {
                "network": network.name, "quantity": "share of requests", "value": share, "mix": rows,
                "expected": entries,
            }  # fmt: skip


def theory(count: int = 400_000) -> Iterator[dict]:
    """Mean waits of queues that are known in closed form, the time of a request being 1."""
    cases = (
        ("M/M/1", 1, 0.8, 0.8 / 0.2), ("M/M/10", 10, 0.9, erlang_c(10, 9.0)),
        ("M/G/1", 1, 0.7, 0.7 * (0.9 * 25 + 0.1 * 2500) / 9.5**2 / 2 / 0.3),
    )  # fmt: skip
    for name, servers, load, expected in cases:
        made = Simulation(servers, 1, lambda entries: entries, ahead=False)
        found = made.run(poisson(load * servers, _steps if "G" in name else _exponential, count))
        wait = sum(r.latency - r.rows * r.entries for r in found) / count
        yield {
            "network": name, "gpus": servers, "load": load, "requests": count,
            "quantity": "mean wait", "value": wait, "expected": expected,
        }  # fmt: skip


def erlang_c(servers: int, load: float) -> float:
    """The mean wait of M/M/c, load in Erlang, the mean time of a request being 1."""
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    below = sum(load**k / math.factorial(k) for k in range(servers))
    return last / (below + last) / (servers - load)


def _exponential(made: random.Random) -> tuple[int, float]:
    return 1, made.expovariate(1.0)


def _steps(made: random.Random) -> tuple[int, float]:
    return (5 if made.random() < 0.9 else 50), 1 / 9.5


def measured() -> list[dict[str, str]]:
    with (results.FOLDER / results.SERVE).open(newline="") as file:
        return list(csv.DictReader(file))


def engines() -> Iterator[dict]:
    """The simulation beside the engine that was measured: its row times are those of lockstep (a full batch)
    and of one at a time, its mix and load the engine's own."""
    from diffusion_engine import Sampler, solvers
    from diffusion_engine.zoo import load_network

    from .serve import MIXES

    network = load_network("digits")
    own = float(next(r["us_row"] for r in measured() if r["contender"] == "own")) * 1e-6
    for name, mix in MIXES.items():
        plans = [
            Sampler(
                network,
                solvers.solver(k.spec.solver.name, **k.spec.solver.options),
                **k.spec.arguments(),
            )
            for k in mix
        ]
        kinds = tuple((k.weight, plan.plan().nfe, 1.0) for k, plan in zip(mix, plans, strict=True))
        for executor in ("eager", "native"):
            yield from _engine(name, executor, kinds, own)


def _engine(mix: str, executor: str, kinds: tuple, own: float) -> Iterator[dict]:
    found = [r for r in measured() if r["mix"] == mix and r["executor"] == executor]
    full = [r for r in found if r["contender"] == "engine" and r["load"] == "all"]
    best = max(full, key=lambda r: float(r["images_s"]))
    same = [r for r in found if all(r[key] == best[key] for key in ("threads", "waiting"))]
    rate = {r["contender"]: float(r["images_s"]) for r in same if r["load"] == "all"}
    rows = sum(w * r for w, r, _ in kinds) / sum(w for w, _, _ in kinds)
    one, many = 1 / rows / rate["one at a time"], SEATS / rows / rate["lockstep"]
    network = Network("digits", one + own, (many - one) / (SEATS - 1), kinds)
    at_once = [Request(0.0, *network.draw(random.Random(i))) for i in range(int(best["requests"]))]
    made = Simulation(1, SEATS, network.row_s).run(at_once)
    said = {"network": f"digits, {executor}", "mix": mix, "gpus": 1}
    seen = len(made) / max(r.done for r in made)
    yield said | {"load": 1.0, "quantity": "images/s", "value": seen, "expected": rate["engine"]}
    loaded = next(r for r in same if r["contender"] == "engine" and r["load"] != "all")
    asked = float(loaded["load"]) * rate["engine"]
    many_of = [
        r.latency
        for r in Simulation(1, SEATS, network.row_s).run(poisson(asked, network.draw, 20_000))
    ]
    for q in (50, 99):
        seen, there = quantile(many_of, q / 100), float(loaded[f"latency_p{q}_ms"]) / 1e3
        about_q = {"quantity": f"latency p{q}, s", "value": seen, "expected": there}
        yield said | {"load": float(loaded["load"])} | about_q


def loads(gpus: tuple[int, ...] = GPUS, each: int = 80, least: int = 20_000) -> Iterator[dict]:
    """Latencies at steady loads, routed in three ways."""
    for network in NETWORKS:
        for n in gpus:
            for load in LOADS:
                for routing in ROUTINGS:
                    made = Simulation(n, SEATS, network.row_s, routing)
                    count = max(each * n, least)
                    found = settled(made.run(poisson(load * n * network.rate, network.draw, count)))
                    yield {
                        "network": network.name, "gpus": n, "load": load, "routing": routing,
                        "requests": count, **about(found, network),
                    }  # fmt: skip


def steps(gpus: tuple[int, ...] = GPUS[:2]) -> Iterator[dict]:
    """The load doubles, and new replicas follow: as many as serve it and clear what waits in a minute."""
    network = NETWORKS[1]
    for n in gpus:
        for before in (0.3, 0.5, 0.7):
            yield _step(network, n, before)


def _step(network: Network, n: int, before: float, at: float = 60.0, whole: float = 300.0) -> dict:
    made = Simulation(n, SEATS, network.row_s)
    low, coming = before * n * network.rate, 0
    arrivals = _stepped(low, 2 * low, at, whole, network.draw)
    capacity = (
        network.rate
        * sum(w * r * e for w, r, e in network.kinds)
        / sum(k[0] for k in network.kinds)
    )
    seen: list[float] = []

    def served() -> None:
        nonlocal coming
        coming -= 1
        made.add()

    def look() -> None:
        nonlocal coming
        seated = sum(len(one.active) + len(one.joining) for one in made.replicas) / SEATS
        seen.append(made.backlog() / capacity / len(made.replicas))
        wanted = math.ceil(seated + made.backlog() / capacity / START)
        for _ in range(max(0, wanted - len(made.replicas) - coming)):
            coming += 1
            made.at(made.now + START, served)
        if made.now < whole:
            made.at(made.now + INTERVAL, look)

    made.at(INTERVAL, look)
    found = made.run(arrivals)
    hit = [r for r in found if at <= r.at < at + 2 * START]
    late = [r.at for r in found if r.at >= at and r.wait > 1.0]
    return {
        "network": network.name, "gpus": n, "load": before, "routing": "shared",
        "requests": len(found), **about(hit, network), "quantity": "s until nobody waits a second",
        "value": max(late, default=at) - at, "expected": max(seen), "replicas": len(made.replicas),
    }  # fmt: skip


def _stepped(low: float, high: float, at: float, whole: float, draw: Draw) -> Iterator[Request]:
    made, now = random.Random(7), 0.0
    while now < whole:
        now += made.expovariate(low if now < at else high)
        yield Request(now, *draw(made))


def losses(gpus: tuple[int, ...] = GPUS) -> Iterator[dict]:
    """A node of eight GPUs is lost at a steady load, and another serves after a while."""
    network = NETWORKS[1]
    for n in gpus:
        for load in (0.5, 0.8):
            yield _loss(network, n, load, min(NODE, n))


def _loss(network: Network, n: int, load: float, node: int, at: float = 60.0) -> dict:
    made = Simulation(n, SEATS, network.row_s)

    held: list[int] = []

    def lose() -> None:
        for replica in made.replicas[:node]:
            held.append(len(replica.active) + len(replica.joining))
            made.lose(replica)

    made.at(at, lose)
    for _ in range(node):
        made.at(at + START + INTERVAL, made.add)
    rate = load * n * network.rate
    found = made.run(poisson(rate, network.draw, int(rate * (at + 2 * START))))
    hit = [r for r in found if at - 60 <= r.at < at + START + INTERVAL]
    return {
        "network": network.name, "gpus": n, "load": load, "routing": "shared",
        "requests": len(found), **about(hit, network), "quantity": "requests made again",
        "value": sum(held), "replicas": node,
    }  # fmt: skip


def bulks(gpus: tuple[int, ...] = GPUS) -> Iterator[dict]:
    """A million samples in shards, no node lost, and one an hour lost and not replaced."""
    for network in NETWORKS:
        for n in gpus:
            for size in (PER_SHARD, 8 * PER_SHARD):
                for lost in (0, 1):
                    yield _bulk(network, n, size, lost)


def _bulk(network: Network, n: int, size: int, lost: int, every: float = 3600.0) -> dict:
    """Each GPU takes the next shard when it is done; a lost node's are made again by others."""
    took = math.ceil(size / SEATS) * STEPS * network.row_s(2 * SEATS)
    shards = math.ceil(BULK / size)
    free = [(0.0, gpu) for gpu in range(n)]
    heapq.heapify(free)
    gone: dict[int, float] = {}
    for node in range(n // NODE if lost else 0):
        if (node + 1) * NODE < n:  # the last one stays
            gone |= {gpu: (node + 1) * every for gpu in range(node * NODE, (node + 1) * NODE)}
    left, end, again = shards, 0.0, 0
    while left:
        when, gpu = heapq.heappop(free)
        until = when + took
        if until > gone.get(gpu, math.inf):
            again += when < gone[gpu]
            continue
        left, end = left - 1, max(end, until)
        heapq.heappush(free, (until, gpu))
    ideal = BULK / SEATS * STEPS * network.row_s(2 * SEATS) / n
    return {
        "network": network.name, "gpus": n, "requests": BULK, "shard": size,
        "quantity": "one node an hour" if lost else "none lost", "value": end, "expected": ideal,
        "replicas": again,
    }  # fmt: skip


PARTS: dict[str, Callable[[], Iterator[dict]]] = {
    "assumed": assumed, "theory": theory, "engine": engines, "load": loads, "step": steps, "loss": losses,
    "bulk": bulks,
}  # fmt: skip

if __name__ == "__main__":
    main()
