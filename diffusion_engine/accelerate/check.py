"""Compares each site with the original forward on the example's own inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .site import Site

LIMIT = 1e-4  # of a float32 result, relative to its largest element
HALF_UNITS = 4  # of a 16-bit result, in units of its rounding


def limit(dtype: torch.dtype) -> float:
    """The difference from the original that a result may have, relative to its largest element."""
    return max(LIMIT, HALF_UNITS * torch.finfo(dtype).eps) if dtype.itemsize < 4 else LIMIT


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, mappings and dataclass-like outputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def difference(got: Any, want: Any) -> tuple[float, float]:
    """(the largest difference relative to the largest element, what it may be) of two results."""
    pairs = list(zip(tensors(got), tensors(want), strict=True))
    worst, allowed = 0.0, LIMIT
    for a, b in pairs:
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf"), allowed
        if b.is_floating_point() and b.numel():
            size = float(b.abs().max())
            error = float((a.double() - b.double()).abs().max())
            worst = max(worst, error / size if size else error)
            allowed = max(allowed, limit(b.dtype))
    return worst, allowed


def copied(value: Any) -> Any:
    """Arguments of its own for a second call, where the first may work in place."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(copied(item) for item in value)
    return value


@contextmanager
def compared(sites: Iterable[Site]) -> Iterator[dict[Site, tuple[float, float]]]:
    """While it is entered, a call of the network runs every site beside its original, whose result
    goes on. Yields the differences, worst call of each site."""
    found: dict[Site, tuple[float, float]] = {}

    def probe(site: Site) -> Any:
        def both(*args: Any, **kwargs: Any) -> Any:
            again = [copied(arg) for arg in args], {k: copied(v) for k, v in kwargs.items()}
            want = site.original(*args, **kwargs)
            got = site.forward(*again[0], **again[1])
            found[site] = max(found.get(site, (0.0, 0.0)), difference(got, site.expected(want)))
            return want

        return both

    sites = list(sites)
    for site in sites:
        site.module.forward = probe(site)  # type: ignore[method-assign]
    try:
        yield found
    finally:
        for site in sites:
            site.remove()
