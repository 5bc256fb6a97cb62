"""A recording is held against the module that it is of, before it is used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from . import reference
from .lower import Refused
from .operations import Attention, Conv, Linear, Operation
from .record import Recorded
from .reference import off

WITHIN = 1e-4  # of the largest element of an output: what a recording may differ by from the module
HALF_WITHIN = 2e-2  # the same of one with products in bf16
LATER = 2 * HALF_WITHIN  # and of an entry that was not there when these were settled
TRIED, NAMED = 24, 3  # products that are tried alone, and that are said


class Beyond(Refused):
    """In bf16 a network is farther off than it may be, and by which operations."""


def exactly(error: float) -> None:
    """Raises Refused where outputs differ by more from the module's own than sums in another order do."""
    if not error <= WITHIN:
        raise Refused(
            f"its outputs differ by {error:.1e} of the largest from the module's own: it draws random "
            "numbers, or keeps something from call to call"
        )


def difference(want: Sequence[Tensor], got: Sequence[Tensor], entries: int) -> float:
    """How far outputs are from the module's own, of their largest elements. Raises Refused where they have
    other shapes.

    entries  of the call
    """
    if len(want) != len(got):
        raise Refused(f"it returned {len(want)} tensors and the recording has {len(got)}")
    for a, b in zip(want, got, strict=True):
        if a.shape != b.shape:
            raise Refused(
                f"of {entries} entries it returned {list(a.shape)} and the recording has "
                f"{list(b.shape)}: it has the size of a call as a number in it"
            )
    errors = [off(a, b) for a, b in zip(want, got, strict=True)]
    return next((e for e in errors if e != e), max(errors))


def near(
    recorded: Recorded,
    half: Collection[int],
    call: Sequence[Tensor],
    error: float,
    names: Mapping[int, str],
    limit: float = HALF_WITHIN,
) -> None:
    """Raises Beyond where a call in bf16 is farther off than a limit.

    half   operations that are in bf16, by their places
    error  how far its outputs are off, of their largest elements
    names  of the module's parameters, by their addresses
    """
    if error <= limit:
        return
    alone = [
        f"{told(recorded.operations[i], names)} {share:.1e}"
        for i, share in blamed(recorded, call, half)[:NAMED]
    ]
    raise Beyond(
        f"its outputs differ by {error:.1e} of the largest from the module's own, and may by "
        f"{limit:.0e}. Of that come alone to: {'; '.join(alone)}"
    )


def blamed(
    recorded: Recorded, call: Sequence[Tensor], half: Collection[int]
) -> list[tuple[int, float]]:
    """Operations and what the outputs are off by where that one alone is in bf16, the worst first. Tried are
    those that are off the most themselves."""
    exact, effects = reference.run(recorded, call), reference.effects(recorded, call, half)
    tried = sorted(effects, key=lambda i: -effects[i])[:TRIED]
    found = [
        (i, difference(exact, reference.run(recorded, call, {i}), len(call[0]))) for i in tried
    ]
    return sorted(found, key=lambda one: -one[1])


def told(op: Operation, names: Mapping[int, str]) -> str:
    """A product, as a sentence has it."""
    if isinstance(op, Attention):
        _, heads, queries, dim = op.q.shape
        return f"attention of {heads} heads of {dim}, {queries} queries and {op.k.shape[2]} keys"
    assert isinstance(op, Conv | Linear)
    sizes = f"{op.x.shape[2]} to {op.out.shape[2]}"
    if isinstance(op, Conv):
        weight, about = op.weight, "x".join(map(str, op.weight.shape[2:])) + ", "
        about += "x".join(map(str, op.out_size))
    else:
        weight, about = op.weights[0], f"{op.out.shape[1]} rows"
    name = names.get(weight.data_ptr())
    return f"{op.name} {sizes} ({about}{f', {name}' if name else ''})"
