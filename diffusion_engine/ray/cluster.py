"""Joining a Ray cluster: a release without its known holes, nothing told to anybody, no dashboard."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

# Before it the dashboard let a web page that was open in a browser delete jobs: CVE-2026-27482.
LEAST = (2, 54)
# Nothing is told to anybody; and the proxy gives a request to the less loaded of two replicas, where Ray
# would fill those of its own node first. A node reads them when it starts.
DEFAULTS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING": "0"}


def check_version() -> None:
    """Raises ValueError where Ray is not installed, or is too old to be safe."""
    try:
        found = metadata.version("ray")
    except metadata.PackageNotFoundError:
        raise ValueError(
            "Ray is not installed; pip install 'diffusion-engine[ray,serve]' brings it"
        ) from None
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < LEAST:
        least = ".".join(map(str, LEAST))
        raise ValueError(
            f"Ray {found} has a known hole (CVE-2026-27482); install {least} or later on every node"
        )


@contextmanager
def joined(address: str | None = None) -> Iterator[None]:
    """In a cluster: one of this machine alone that ends with the block, or the one at an address.

    address  host:port of the head, or auto for one that runs on this machine
    Raises ValueError where Ray is missing or too old, or there is no cluster.
    """
    check_version()
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    import ray

    own: dict[str, Any] = {"include_dashboard": False} if address is None else {"address": address}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    except ConnectionError as error:
        raise ValueError(
            f"no Ray cluster is at {address!r} ({error}); start one by `ray start --head`"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
