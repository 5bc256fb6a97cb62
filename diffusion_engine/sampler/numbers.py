"""The seeds and scales of a request, one of each a sample, and the sizes of its calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .. import checks
from .wanted import SEED

COUNT = "ask for at least 1 sample"
SIZE = 1 << 16  # entries of a call that is made again: a recipe may come from anybody
BUCKET = f"entries of a call of the network, from 1 to {SIZE}"
RUN = (
    "it is (calls, size, place, size, place, ...), with each place below its size and no size above "
    f"{SIZE}"
)


def seeds(
    n: int | None, seed: int | None, seeds: Sequence[int] | None, implied: int | None
) -> tuple[int, ...]:
    """Those of n samples; see Sampler.sample. Raises ValueError where they make no sense.

    implied  how many samples there are by what else was given, or None
    """
    if seeds is not None:
        if seed is not None:
            raise ValueError("seed and seeds were both given; seeds=[...] names every sample's own")
        listed = checks.entries("seeds", seeds, "give one seed a sample, as [7, 8, 9]")
        numbers = tuple(checks.whole(f"seeds[{i}]", s, 0, SEED) for i, s in enumerate(listed))
        if n is not None and checks.whole("n", n, 1, COUNT) != len(numbers):
            raise ValueError(
                f"n={n} samples and {len(numbers)} seeds; give one seed a sample, or leave n out"
            )
    else:
        implied = 1 if implied is None else implied
        count = checks.whole("n", implied if n is None else n, 1, COUNT)
        first = checks.whole("seed", 0 if seed is None else seed, 0, SEED)
        numbers = tuple(range(first, first + count))
    if not numbers:
        raise ValueError("seeds is empty; give at least one")
    if max(numbers) >= 2**64:
        raise ValueError(f"{SEED}; got {min(numbers)} ... {max(numbers)}")
    return numbers


def scales(name: str, given: float | Sequence[float], n: int) -> tuple[float, ...]:
    """One for each of n samples. Raises ValueError where others are given."""
    made = checks.numbers(name, given)
    if isinstance(made, float):
        return (made,) * n
    if len(made) != n:
        raise ValueError(
            f"{len(made)} guidance scales for {n} samples; give one number, or one a sample"
        )
    return made


def bucket(given: Any) -> int:
    """Entries of every call. Raises ValueError where they make no sense."""
    if (size := checks.whole("bucket", given, 1, BUCKET)) > SIZE:
        raise ValueError(f"bucket={size}: {BUCKET}")
    return size


def runs(calls: Iterable[Any]) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Those of each sample, as Recipe.calls has them. Raises ValueError where they make no sense."""
    return tuple(
        tuple(_run(i, run) for run in checks.entries(f"calls[{i}]", sample, "give its runs"))
        for i, sample in enumerate(calls)
    )


def _run(sample: int, given: Any) -> tuple[int, ...]:
    run = tuple(given) if isinstance(given, (list, tuple)) else ()
    whole = len(run) % 2 == 1 and all(type(value) is int for value in run) and run[0] > 0
    if not whole or not all(0 <= p < s <= SIZE for s, p in zip(run[1::2], run[2::2], strict=True)):
        said = checks.said(list(run) if run else given)
        raise ValueError(f"calls[{sample}] has the run {said}: {RUN}")
    return run
