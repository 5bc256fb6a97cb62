"""Plans on networks that are affine in what they read, as on Gaussian data: a run's law without sampling.

What a run holds is then affine in the state it was given and in its normals, and jointly Gaussian. Weights
[k, columns] say so for k numbers: column 0 is their mean, every other one belongs to a standard normal.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from diffusion_engine import ScoreNetwork
from diffusion_engine.plan import Plan, Row

Array = np.ndarray


def law(weights: Array) -> tuple[Array, Array]:
    """Mean and covariance of jointly Gaussian numbers."""
    return weights[:, 0], weights[:, 1:] @ weights[:, 1:].T


class Outputs(NamedTuple):
    """Of one call: output j is offset[j] + by_read[j] @ slots read + by_latent[j] @ latent."""

    offset: Array
    by_read: Array
    by_latent: Array


def outputs(plan: Plan, network: ScoreNetwork) -> list[Outputs | None]:
    """Of every row, from one call of the network with zeros and unit inputs in their turn."""
    rows = [row for row in plan.rows if row.call]
    reads, latent = len(rows[0].call.read), network.parameterisation.latent
    tries = 1 + reads + latent
    units = np.eye(tries)[:, 1:]
    scales = np.array([row.call.c_in for row in rows])
    given = units[None, :, :reads] * scales[:, None, :]
    x = torch.from_numpy(given.reshape(-1, reads))
    told = torch.tensor([row.call.labels for row in rows], dtype=torch.float64)
    label, end = told.repeat_interleave(tries, 0).unbind(1)
    end = None if network.parameterisation.end_label is None else end
    z = torch.from_numpy(np.tile(units[:, reads:], (len(rows), 1))) if latent else None
    made = torch.cat(network(x, label, None, z, end), dim=1)
    made = made.double().numpy().reshape(len(rows), tries, -1)
    offsets, weights = made[:, 0], (made[:, 1:] - made[:, :1]).transpose(0, 2, 1)
    each = iter(
        Outputs(o, w[:, :reads], w[:, reads:]) for o, w in zip(offsets, weights, strict=True)
    )
    return [next(each) if row.call else None for row in plan.rows]


class Map(NamedTuple):
    """One row: slots become offset + matrix @ slots + noise @ normals + poke @ (errors of its outputs).

    The normals are z0 and z1, then those of the network's latent.
    """

    offset: Array
    matrix: Array
    noise: Array
    poke: Array


def maps(plan: Plan, network: ScoreNetwork) -> Iterator[Map]:
    """Of every row, with the network in it."""
    for row, made in zip(plan.rows, outputs(plan, network), strict=True):
        yield _map(row, made, plan.slots, network.parameterisation.latent)


def _map(row: Row, made: Outputs | None, slots: int, latent: int) -> Map:
    places = {f"S{k}": k for k in range(slots)} | {"one": slots}
    places |= {f"z{m}": slots + 1 + m for m in range(2)}
    first = slots + 3 + latent  # of the outputs' errors
    width = first + len(row.q)
    symbols = {name: np.eye(width)[k] for name, k in places.items()}
    scale = 1.0
    if made is not None:
        blocks = list(row.channel_blocks)
        out = np.zeros((len(blocks), width))
        out[:, list(row.call.read)] = made.by_read[blocks]
        out[:, slots] = made.offset[blocks]
        out[:, slots + 3 : first] = made.by_latent[blocks]
        out[:, first:] = np.eye(len(blocks))
        assert row.clip is None, "a clipped estimate is not affine"
        state = np.pad(row.p, (0, width - len(row.p)))
        symbols["D"] = row.scale * (state + np.array(row.q) @ out)
        symbols["raw"] = np.array(row.e) @ out if row.e else np.zeros(width)
        if row.learned:
            base, slope, j = row.learned
            assert not out[j, :slots].any(), "a variance that depends on the state is not affine"
            scale = np.exp(base + slope * out[j, slots])
    for m in range(2):
        symbols[f"z{m}"] = scale * symbols[f"z{m}"]
    new = np.eye(slots, width)
    for k, update in row.new.items():
        new[k] = sum((weight * symbols[s] for s, weight in update), np.zeros(width))
    return Map(new[:, slots], new[:, :slots], new[:, slots + 1 : first], new[:, first:])


class Seen(NamedTuple):
    """After a row: weights of what its call read (None without one), in the network's own scale, and of all
    slots; and how the slots change [slots, calls, outputs] with the outputs of every call."""

    read: Array | None
    slots: Array
    pokes: Array


def followed(plan: Plan, network: ScoreNetwork, given: Array | None = None) -> Iterator[Seen]:
    """A run row by row.

    given  weights of the slots before row 0, [1 or 2, columns]: of the x, or [x, v], that a plan begins
           with; a plan that draws its own reads none
    """
    known = np.zeros((1, 1)) if given is None else given
    calls, widest = len(plan.rows) - 1, max(len(row.q) for row in plan.rows)
    normals = known.shape[1]
    slots = np.zeros((plan.slots, normals + len(plan.rows) * (2 + network.parameterisation.latent)))
    slots[: len(known), :normals] = known
    pokes = np.zeros((plan.slots, calls, widest))
    for i, (row, step) in enumerate(zip(plan.rows, maps(plan, network), strict=True)):
        read = row.call and np.array(row.call.c_in)[:, None] * slots[list(row.call.read)]
        slots = step.matrix @ slots
        slots[:, 0] += step.offset
        count = step.noise.shape[1]
        slots[:, normals : normals + count] += step.noise
        normals += count
        if i:
            pokes = np.tensordot(step.matrix, pokes, 1)
            pokes[:, i - 1, : step.poke.shape[1]] += step.poke
        yield Seen(read, slots, pokes)


def end(plan: Plan, network: ScoreNetwork, given: Array | None = None) -> tuple[Array, Array]:
    """Mean and covariance of all slots after the last row."""
    (last,) = deque(followed(plan, network, given), maxlen=1)
    return law(last.slots)
