"""What a caller asks of a sampler, checked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import checks
from ..networks.condition import check_alike, checked, length, origins
from ..networks.network import Condition
from ..rollouts.tape import records
from . import images, numbers
from .conditions import (
    Compose,
    Labels,
    SamplerLike,
    check_guided,
    composed,
    labels,
    negative_of,
)
from .plans import Scale
from .wanted import REFINE, START

if TYPE_CHECKING:
    from ..executors.job import NoiseSource

# Given normals, or "brownian"
Noise = Tensor | Callable[[int, int, tuple[int, ...]], Tensor] | str
PER_SAMPLE = (
    "seeds", "scales", "condition", "concepts", "negative", "labels", "negative_labels", "x", "mask", "known",
    "measurement", "calls",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Request:
    """A checked request; every field has one entry a sample. `Sampler.sample` explains the fields.

    scales     of guidance; the weights of the conditions where several are composed
    concepts   the composed conditions after the first
    negative   the condition of the unconditional branch, where that is not the network's null
    labels     the classes or prompts of the condition and of each concept; None where it is neither
    negative_labels  those of the negative
    encoding   None to sample, else encode's `refine`
    bucket, calls  sizes of the network's calls, as a recipe says them (buckets.py)
    record     what the rollout holds
    origins    what the conditions were made of, where they say it (`origin`)
    """

    seeds: tuple[int, ...]
    scales: tuple[Scale, ...]
    condition: Condition | None = None
    concepts: tuple[Condition, ...] = ()
    x: Tensor | None = None
    start: float | None = None
    noised: bool = False
    mask: Tensor | None = None
    known: Tensor | None = None
    measurement: Tensor | None = None
    noise: Noise | None = None
    encoding: int | None = None
    bucket: int | None = None
    calls: tuple[Sequence[Sequence[int]], ...] | None = None
    record: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    negative: Condition | None = None
    labels: tuple[Labels, ...] = ()
    negative_labels: Labels = None
    first: int = 0

    @property
    def n(self) -> int:
        return len(self.seeds)

    @property
    def sized(self) -> bool:
        """Whether it says the sizes of the network's calls."""
        return self.bucket is not None or self.calls is not None

    @classmethod
    def of(
        cls,
        sampler: SamplerLike,
        n: int | None = None,
        *,
        seed: int | None = None,
        seeds: Sequence[int] | None = None,
        condition: Any = None,
        guidance: float | Sequence[float] | None = None,
        compose: Compose | None = None,
        negative: Any = None,
        x: Tensor | None = None,
        start: float | None = None,
        noised: bool = False,
        mask: Tensor | None = None,
        known: Tensor | None = None,
        measurement: Tensor | None = None,
        noise: Noise | None = None,
        encoding: int | None = None,
        bucket: int | None = None,
        calls: Sequence[Sequence[Sequence[int]]] | None = None,
        record: Sequence[str] = (),
    ) -> Request:
        """Checks what was given; raises ValueError with what to do."""
        network, device = sampler.network, sampler.device
        conditions, weights = composed(sampler, compose, condition, guidance)
        implied = length([*conditions, negative])
        implied = images.count(network, x, measurement) or implied
        seeded = numbers.seeds(n, seed, seeds, implied)
        count = len(seeded)
        parts = [checked(network, c, count, device, sampler.input_dtype) for c in conditions]
        made, concepts = parts[0], tuple(c for c in parts[1:] if c is not None)
        scales: tuple[Scale, ...] = tuple(
            zip(*(numbers.scales("weight", w, count) for w in weights), strict=True)
        )
        if not weights:
            scales = numbers.scales(
                "guidance", sampler.guidance if guidance is None else guidance, count
            )
        check_alike(parts)
        against = negative_of(sampler, negative, scales, count)
        check_guided(sampler, scales, condition, conditions[0], against)
        noised = checks.flag("noised", noised)
        start = None if start is None else checks.number("start", start, START)
        if x is None and (start is not None or noised):
            raise ValueError("start and noised belong to a given x; give x=")
        if x is not None and start is None and not noised and encoding is None:
            raise ValueError(
                "x is given: say at which time to start (start=), or that it is noised=True"
            )
        if (mask is None) != (known is None):
            raise ValueError("inpainting needs both mask= and known=")
        if encoding is not None:
            encoding = checks.whole("refine", encoding, 0, REFINE)
        if x is not None:
            whole = noised or encoding is not None
            x = images.state(x, network, count, device, sampler.state_dtype, whole)
        if mask is not None:
            mask, known = images.region(mask, known, network, count, device)
        measurement = images.measurement(measurement, network, count, device)
        return cls(
            seeded, scales, made, concepts, x, start, noised, mask, known, measurement, _noise(noise),
            encoding, *_sizes(bucket, calls, count), records(record),
            origins(network, [*conditions, negative]), against, labels(conditions, parts, count),
            labels([negative], [against], count)[0] if against is not None else None,
        )  # fmt: skip

    def part(self, low: int, high: int) -> Request:
        """Samples low ... high - 1 of the request."""
        if low == 0 and high >= self.n:
            return self

        def cut(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {name: tensor[low:high] for name, tensor in value.items()}
            if value is self.concepts or value is self.labels:
                return tuple(map(cut, value))
            return None if value is None else value[low:high]

        return dataclasses.replace(
            self, first=low, **{name: cut(getattr(self, name)) for name in PER_SAMPLE}
        )

    def noise_source(self) -> NoiseSource | None:
        """The given normals of this part, as a function of row and m."""
        given, low, high = self.noise, self.first, self.first + self.n
        if given is None or isinstance(given, str):
            return None
        if isinstance(given, Tensor):
            return partial(_given_normals, given, low, high)
        return lambda row, m: given(row, m, self.seeds)

    def recipe(self) -> dict[str, Any]:
        """The JSON-able part, and the names of what JSON does not hold."""
        composed = isinstance(self.scales[0], tuple)
        told = (
            [] if None in self.labels else [list(each) for each in self.labels if each is not None]
        )
        needs = ["compose" if composed else "condition"] if None in self.labels else []
        needs += ["negative"] if self.negative is not None and self.negative_labels is None else []
        needs += [k for k in ("x", "mask", "known", "measurement") if getattr(self, k) is not None]
        named = isinstance(self.noise, str)
        needs += ["noise"] if self.noise is not None and not named else []
        return {
            "seeds": list(self.seeds),
            "condition": told[0] if told and not composed else None,
            "compose": [list(y) for y in zip(*told)] if told and composed else None,  # noqa: B905
            "negative": None if self.negative_labels is None else list(self.negative_labels),
            "guidance": [list(s) if isinstance(s, tuple) else s for s in self.scales],
            "start": self.start,
            "noised": self.noised,
            "encoding": self.encoding,
            "noise": self.noise if named else None,
            "bucket": self.bucket,
            "calls": None if self.calls is None else [[[*r] for r in s] for s in self.calls],
            "needs": needs,
            "origins": list(self.origins),
        }


# What `sample` may be asked, beside how its batches are run.
ASKED = frozenset(signature(Request.of).parameters) - {"sampler", "n"}


def _noise(given: Any) -> Noise | None:
    """Given normals as the run reads them."""
    if isinstance(given, np.ndarray):
        given = torch.from_numpy(given)
    floats = isinstance(given, Tensor) and given.is_floating_point()
    named = isinstance(given, str) and given == "brownian"
    if given is None or named or floats or callable(given):
        return given
    raise ValueError(
        f"noise={checks.said(given)}: give 'brownian', a tensor of normals or a function, or leave it out"
    )


def _sizes(
    bucket: int | None, calls: Any, n: int
) -> tuple[int | None, tuple[Sequence[Sequence[int]], ...] | None]:
    """The sizes of the network's calls, as checked."""
    if bucket is not None and calls is not None:
        raise ValueError("bucket and calls both say how large the network's calls are; give one")
    bucket = None if bucket is None else numbers.bucket(bucket)
    if calls is None:
        return bucket, None
    listed = numbers.runs(
        checks.entries("calls", calls, "give the runs of each sample, as recipes do")
    )
    if len(listed) != n:
        raise ValueError(f"calls are of {len(listed)} samples and {n} are made; give those of each")
    return None, listed


def _given_normals(given: Tensor, low: int, high: int, row: int, m: int) -> Tensor:
    """Those of samples low ... high - 1 for normal m of a row."""
    if given.ndim < 3 or row >= given.shape[0] or m >= given.shape[1] or high > given.shape[2]:
        raise ValueError(
            f"noise has shape {list(given.shape)} and the run reads row {row}, draw {m} of {high} samples; "
            "give [rows, draws, n, *shape]"
        )
    return given[row, m, low:high]
