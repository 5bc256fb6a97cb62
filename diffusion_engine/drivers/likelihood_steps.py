"""Log-densities along the engine's own fixed steps: the plan that encodes, and quadrature weights out of it.

A solver moves x = alpha x0 + sigma eps, whose ODE is dx = D d alpha + eps d sigma. The logarithm of the
density of z = x / (alpha + sigma) obeys dl = div_z U du (likelihood_paths.py), and L = (alpha + sigma) l is
therefore a state of the very same form,

    dL = D_L d alpha + eps_L d sigma,     D_L = l - u div_z U

so that every row of the plan, written for x and D, moves L and D_L too. Followed in float64 with the
divergences of the calls as unknowns, that gives weights w_i with l_end = sum_i w_i (div_z U)_i: the
solver's own quadrature, of its own order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..executors import Batch
from ..networks.network import ScoreNetwork
from ..plan import Plan, Row
from ..processes import Point
from ..sampler.request import Request
from ..sampler.sampler import Sampler
from .likelihood_divergence import Divergence, with_divergence
from .likelihood_paths import Part, divergence_at, scale, share

Array = np.ndarray


def weights(plan: Plan) -> Array:
    """w [nfe] of the divergences of a plan's calls, float64.

    Raises ValueError where a row is not made of one state and one output alone.
    """
    calls = [row for row in plan.rows if row.call is not None]
    held = {k: np.zeros(len(calls)) for k in range(plan.slots)}
    unknown = iter(np.eye(len(calls)))
    for row in plan.rows[1:]:
        if row.call is None:
            of_denoised = of_raw = np.zeros(len(calls))
        else:
            of_denoised, of_raw = _said(plan, row, row.call.at, held, next(unknown))
        held |= {
            k: sum(
                (w * held[int(s[1:])] for s, w in update if s[0] == "S"),
                update["D"] * of_denoised + update["raw"] * of_raw,
            )
            for k, update in row.new.items()
        }
    last = plan.rows[-1].state
    assert last is not None, "a run ends in a state"
    return held[0] / scale(last)


def _said(
    plan: Plan, row: Row, at: Point, held: dict[int, Array], unknown: Array
) -> tuple[Array, Array]:
    """What a row's `denoised` and `raw` are of L: D_L, and e out_L with q out_L = D_L - sum_k p[k] L[k]."""
    assert row.call is not None
    if any(row.channel_blocks) or any(row.branches) or len(row.call.read) != 1 or row.clip:
        raise ValueError(
            f"solver {plan.name!r} moves its state by more than one estimate of x0 a call, of which no "
            "density follows; use solver='dopri5', or one such as 'dpmpp_2m'"
        )
    of_denoised = held[row.call.read[0]] / scale(at) - share(at) * unknown
    if not any(row.e):
        return of_denoised, np.zeros_like(unknown)
    rest = of_denoised - sum(p * held[k] for k, p in enumerate(row.p))
    return of_denoised, sum(row.e) / sum(row.q) * rest


def run(sampler: Sampler, part: Request, divergence: Divergence) -> Part:
    """Measures samples side by side in a batch, on the plan that encodes."""
    network, plan = sampler.network, sampler.planned(part)[0]
    jobs = sampler.jobs(part, [plan] * part.n)
    batch = sampler.executor.open(None, sampler.capacity(network, part, jobs))
    seats = [batch.admit(job) for job in jobs]
    integrals = carried(batch, seats, plan, network, divergence)
    if not all(batch.finite(seats)):
        raise ValueError(
            "the network's output is not finite on the way to noise: check its input and its weights, or "
            "begin at a larger t_min"
        )
    return Part(batch.read(seats), integrals, [plan.nfe] * part.n)


def carried(
    batch: Batch, seats: Sequence[int], plan: Plan, network: ScoreNetwork, divergence: Divergence
) -> Tensor:
    """Steps the seats of a batch to their ends; of each the sum of w div_z U, [k, n] float64.

    seats       who run the plan, all from its first row
    divergence  of their samples, in this order
    The network is called for all of them at once, and differentiated in its input.
    """
    total = torch.zeros(
        divergence.count, len(seats), dtype=torch.float64, device=batch.capacity.device
    )
    size = torch.Size(network.shape).numel()
    pairs = zip((r.call for r in plan.rows if r.call), weights(plan).tolist(), strict=True)
    while batch.live:
        given = batch.inputs()
        if given is None:
            batch.step()
            continue
        x, label, condition, *_ = given
        entries = [batch.reads()[seat][0] for seat in seats]
        assert entries == list(range(len(seats))), "unguided seats are packed in their order"

        def function(x: Tensor) -> Tensor:
            return network(x, label, condition)[0][:, : network.shape[0]]  # noqa: B023

        out, trace = with_divergence(function, x, divergence)
        call, weight = next(pairs)
        total += weight * divergence_at(
            network.parameterisation, call.at, size, call.c_in[0] * trace
        )
        batch.step(outs=[out])
    return total
