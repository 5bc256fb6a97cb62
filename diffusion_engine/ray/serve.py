"""A Ray Serve deployment: every replica is the HTTP server's app on an `Engine` of its own.

Requests beyond twice a replica's seats wait in Serve's proxy, so that a new replica has work at once; Serve
batches nothing, which the engines do.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import checks
from ..models import network_of
from ..networks.placement import named_dtype
from ..server.app import make_app
from ..server.kept import Entry, Requests
from ..server.refused import Refused
from ..server.settings import Settings
from ..workers.inprocess import InProcess
from .scaling import EACH, WANTED, by_work

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application

NAME = "diffusion_engine"
AHEAD = 2  # requests that Serve gives a replica, over its seats
LATE = 10.0  # seconds beyond a request's deadline after which Serve gives its answer up
HEALTH = 5.0  # seconds between two looks at a replica


class Known(Requests):
    """The requests of one replica, which says that others have theirs."""

    def find(self, name: str, owner: str) -> Entry:
        """Raises Refused where there is none."""
        try:
            return super().find(name, owner)
        except Refused:
            raise Refused(
                404,
                f"this replica knows no request {name[:80]!r}, and another may: each knows its own; ask "
                "without wait=false, and the answer comes where you asked",
                "not_found",
            ) from None


class Replica:
    """An engine, its service and its app.

    settings   of the server
    device     of the engine
    seconds    that what a replica holds may take, before another is wanted
    """

    here: FastAPI  # of this process, which holds one replica

    async def __init__(self, settings: Settings, device: str, seconds: float) -> None:  # type: ignore[misc]
        networks = {name: network_of(text, device=device) for name, text in settings.models.items()}
        named = ("executor", "batch", "accelerate", "threads", "max_queue")
        how = {name: getattr(settings, name) for name in named}
        self._service = InProcess(
            networks,
            settings.capacity,
            max_cost=settings.max_cost,
            device=device,
            dtype=named_dtype(settings.dtype),
            **how,
        )
        await self._service.start()
        Replica.here = make_app(self._service, settings)
        self._front = Replica.here.state.front
        self._front.requests = Known(settings)
        self._settings, self._seconds = settings, seconds

    def check_health(self) -> None:
        """Of Serve, which puts another in the place of a replica that raises: whose engine is broken."""
        if (reason := self._service.objection()) is not None:
            raise RuntimeError(reason)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Of Serve: how many replicas the work that is here wants, and a mean request."""
        seen = self._service.engine.snapshot()
        row, rows, called = seen["row_s"]["mean"], seen["rows"], seen["called"] - seen["padded"]
        second = row * rows / called / self._seconds if row and called else 0.0
        costs = [entry.cost for entry in list(self._front.requests.open.values())]
        total = second * sum(costs)
        return {WANTED: total, EACH: total / max(len(costs), 1)}

    async def end(self) -> None:
        """Lets what was accepted end, of which nobody may wait for an answer."""
        self._front.ending = "the replica ends"
        await self._service.close(self._settings.drain)


class Ending(Replica):
    """A replica as Serve ends it: by its finalizer, when it has answered what it was given."""

    async def __del__(self) -> None:
        await self.end()


def _here() -> FastAPI:
    """Of Serve, when the replica of this process is made."""
    return Replica.here


def application(
    settings: Settings,
    *,
    replicas: int = 1,
    most: int | None = None,
    seconds: float = 10.0,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
) -> Application:
    """What `ray.serve.run` takes.

    settings  of the server; every replica has the same. A key is read from key_file, on each node
    replicas  how many there are; with `most` the least of them, and the most that waiting work may want
    seconds   that what a replica holds may take, before another is wanted
    num_cpus, num_gpus  of a replica; with a GPU its engine is there

    Raises ValueError where an argument makes no sense.
    """
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    checks.whole("replicas", replicas, 1, "at least 1 replica")
    if settings.key is not None:
        raise ValueError(
            "a key in the settings would lie in Ray's store: give key_file, a file that every node has"
        )
    if settings.uds is not None:
        raise ValueError("uds: Ray's proxy listens on a port; leave it out")
    count: dict[str, Any] = {"num_replicas": replicas}
    if most is not None:
        checks.whole("most", most, replicas, f"at least {replicas} replicas")
        policy = AutoscalingPolicy(policy_function=by_work)
        scaling = AutoscalingConfig(
            min_replicas=replicas, max_replicas=most, upscale_delay_s=5.0, downscale_delay_s=300.0,
            look_back_period_s=15.0, policy=policy,
        )  # fmt: skip
        count = {"autoscaling_config": scaling}
    mounted: Any = serve.ingress(_here)(Ending)
    deployment: Any = serve.deployment(mounted)
    made: Application = deployment.options(
        name=NAME,
        max_ongoing_requests=AHEAD * settings.capacity,
        max_queued_requests=settings.max_queue,
        graceful_shutdown_timeout_s=settings.drain + LATE,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=HEALTH,
        health_check_timeout_s=6 * HEALTH,
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
        **count,
    ).bind(settings, "cuda" if num_gpus else "cpu", seconds)
    return made


def start(settings: Settings, every_node: bool = False, **how: Any) -> str:
    """Puts the application on the cluster that `ray.init` joined, and returns its address when it answers.

    settings    of the server
    every_node  whether a proxy listens on each node, and not on the head alone
    how         as in `application`
    """
    from ray import serve

    made = application(settings, **how)
    serve.start(
        proxy_location="EveryNode" if every_node else "HeadOnly",
        http_options={
            "host": settings.host, "port": settings.port, "request_timeout_s": settings.max_seconds + LATE,
            "keep_alive_timeout_s": round(settings.keep_alive),
        },
    )  # fmt: skip
    serve.run(made, name=NAME, route_prefix="/")
    return f"http://{settings.host}:{settings.port}"


def until_signal(told: Callable[[], Any]) -> None:
    """Calls `told`, waits for SIGTERM or SIGINT, and ends the application: what was accepted is answered."""
    from ray import serve

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    told()
    while not ended.wait(0.5):
        pass
    serve.delete(NAME)  # replicas drain while the proxies answer; a shutdown alone ends these first
    serve.shutdown()
