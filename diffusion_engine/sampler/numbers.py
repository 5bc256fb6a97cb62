"""The seeds and scales of a request, one of each a sample."""

from __future__ import annotations

from collections.abc import Sequence

from .. import checks
from .wanted import SEED

COUNT = "ask for at least 1 sample"


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
