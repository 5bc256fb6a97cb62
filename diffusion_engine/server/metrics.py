"""`/metrics`: what service and server count, in Prometheus's text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as TYPE

from ..version import __version__
from .counts import EDGES
from .front import Front

__all__ = ["TYPE", "exposition"]

PREFIX = "diffusion_engine_"
# Of an engine's counters.
COUNTERS = {
    "rows": ("steps", "steps of batches"),
    "seat_rows": ("sample_steps", "steps of samples that called the network"),
    "called": ("network_entries", "entries of calls of the network"),
    "padded": ("padded_entries", "of them, those that nobody asked for"),
    "captures": ("graph_captures", "calls that were recorded for replays"),
    "nonfinite": ("nan", "requests that met a value that is not finite"),
}
GAUGES = {
    "seats": ("seats", "seats of batches"),
    "occupied": ("seats_occupied", "of them, those that are taken"),
    "lanes": ("batches", "batches that are open"),
    "bytes": ("engine_memory_bytes", "of weights that are copies, and of batches"),
}


class Collector:
    """The families of one scrape, of the service's snapshot and the server's own counts."""

    def __init__(self, front: Front) -> None:
        self._front = front

    def collect(self) -> Iterator[Metric]:
        seen, front = self._front.service.snapshot(), self._front
        about = InfoMetricFamily(PREFIX + "build", "the package", {"version": __version__})
        yield about
        for name, key, what in (
            ("requests_waiting", "waiting", "requests without a seat"),
            ("requests_running", "running", "requests with one"),
        ):
            yield GaugeMetricFamily(PREFIX + name, what, seen.get(key, 0))
        ready = front.objection() is None
        yield GaugeMetricFamily(PREFIX + "ready", "whether requests are taken", int(ready))
        kinds = (
            ("requests", "finished", "finished_reason", "requests that have ended"),
            ("worker_restarts", "restarts", "reason", "workers that were replaced"),
        )
        for name, key, label, what in kinds:
            family = CounterMetricFamily(PREFIX + name, what, labels=[label])
            for reason, count in seen.get(key, {}).items():
                family.add_metric([str(reason)], count)
            yield family
        yield from self._engines(seen.get("workers", []))
        yield from self._http()

    def _engines(self, workers: list[Mapping[str, Any]]) -> Iterator[Metric]:
        """By worker; one that does not answer has none."""
        named = [(str(i), w.get("engine") or {}) for i, w in enumerate(workers)]
        up = GaugeMetricFamily(
            PREFIX + "worker_up", "whether it serves", labels=["worker", "device"]
        )
        for i, about in enumerate(workers):
            up.add_metric([str(i), str(about.get("device", ""))], about.get("state") == "ready")
        yield up
        for table, kind in ((COUNTERS, CounterMetricFamily), (GAUGES, GaugeMetricFamily)):
            for key, (name, what) in table.items():
                family = kind(PREFIX + name, what, labels=["worker"])
                for worker, engine in named:
                    if key in engine:
                        family.add_metric([worker], engine[key])
                yield family
        ratio = GaugeMetricFamily(
            PREFIX + "batch_occupancy_ratio", "seats that are taken of all", labels=["worker"]
        )
        for worker, engine in named:
            if engine:
                ratio.add_metric([worker], engine["occupied"] / max(1, engine["seats"]))
        yield ratio
        rows = HistogramMetricFamily(
            PREFIX + "step_time_seconds", "of one step of a batch", labels=["worker"]
        )
        for worker, engine in named:
            if "row_s" in engine:
                seen = engine["row_s"]
                buckets = _cumulative(
                    seen.get("edges", []), seen.get("counts", []), seen["count"], 4
                )
                rows.add_metric([worker], buckets, (seen["mean"] or 0.0) * seen["count"])
        yield rows

    def _http(self) -> Iterator[Metric]:
        counts = self._front.counts
        yield CounterMetricFamily(PREFIX + "samples", "samples that were made", counts.samples)
        for name, spread, what in (
            ("queue_time_seconds", counts.queued, "from submission to the first seat"),
            ("e2e_request_latency_seconds", counts.seconds, "from submission to the end"),
        ):
            buckets = _cumulative(EDGES, spread.counts, sum(spread.counts), 1)
            said = f"{what}, of requests that are done"
            yield HistogramMetricFamily(
                PREFIX + name, said, buckets=buckets, sum_value=spread.total
            )
        yield GaugeMetricFamily(PREFIX + "http_requests_open", "that are answered now", counts.open)
        family = CounterMetricFamily(
            PREFIX + "http_requests", "that were answered", labels=["route", "method", "status"]
        )
        for (route, method, status), count in counts.answers.items():
            family.add_metric([route, method, str(status)], count)
        yield family


def _cumulative(
    edges: Sequence[float], counts: Sequence[int], total: int, every: int
) -> list[tuple[str, float]]:
    """Prometheus's buckets, up to each `every`-th edge: an engine's edges are a fifth apart."""
    found, below = [], 0
    for i, (edge, count) in enumerate(zip(edges, counts, strict=False)):
        below += count
        if i % every == every - 1:
            found.append((f"{edge:.4g}", float(below)))
    return [*found, ("+Inf", float(total))]


def exposition(front: Front) -> bytes:
    """The text of a scrape."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Collector(front))
    return generate_latest(registry)
