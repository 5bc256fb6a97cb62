"""Plans without noise in numpy's float64, row by row as ops/step.py defines them."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from diffusion_engine.plan import Plan, Row

Array = np.ndarray
# network(at, count, *inputs) -> its first `count` channel blocks, from its inputs at a point
Network = Callable[..., Sequence[Array]]


def run(plan: Plan, network: Network, *state: Array) -> Iterator[tuple[Row, dict[int, Array]]]:
    """Every row but the first with the slots it leaves; a slot that the caller changes stays changed.

    state  what row 0 leaves in slot 0, 1, ...
    """
    slots = dict(enumerate(state))
    for row in plan.rows[1:]:
        slots |= renewed(row, network, slots)
        yield row, slots


def renewed(row: Row, network: Network, slots: dict[int, Array]) -> dict[int, Array]:
    """The slots that a row writes."""
    if (
        row.draws(0)
        or row.draws(1)
        or row.clip
        or row.known
        or row.learned
        or set(row.branches) > {0}
    ):
        raise ValueError(f"only plain rows without noise are run here: {row}")
    terms = {f"S{k}": value for k, value in slots.items()}
    if row.call is not None:
        at, read = row.call.at, zip(row.call.read, row.call.c_in, strict=True)
        out = network(at, 1 + max(row.channel_blocks), *(c * slots[k] for k, c in read))
        outputs = [out[block] for block in row.channel_blocks]
        own = [(p, slots[k]) for k, p in enumerate(row.p) if p]
        terms["D"] = row.scale * total([*own, *zip(row.q, outputs, strict=True)])
        if row.e:
            terms["raw"] = total(zip(row.e, outputs, strict=True))
    return {k: total((w, terms[name]) for name, w in new) for k, new in row.new.items()}


def total(parts) -> Array:
    return sum(weight * value for weight, value in parts)


def last(plan: Plan, network: Network, *state: Array) -> dict[int, Array]:
    """The slots at the end."""
    *_, (_, slots) = run(plan, network, *state)
    return slots
