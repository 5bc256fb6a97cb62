"""The rollout of a request, made of what its samples' tapes hold and of their seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from ..networks.network import Condition
from ..ops import layout
from ..ops.noise import NoiseArgs
from ..ops.registry import resolve
from ..plan import Plan
from .rollout import Rollout
from .tape import Tape, kept_slots, stacked
from .transition import Transition, transitions

Shape = tuple[int, ...]


def recorded(
    record: Collection[str], plans: Sequence[Plan], seeds: Sequence[int], tapes: Sequence[Tape],
    conditions: Sequence[Condition | None], shape: Shape, dtype: torch.dtype, device: torch.device,
    mask: Tensor | None = None,
) -> Rollout:  # fmt: skip
    """The rollout of samples that have ended.

    record      what was asked for
    conditions  of each branch
    shape       of one sample
    dtype       of the network's input
    """
    plan = plans[0]  # those of one request differ in guidance alone
    drawn = transitions(plan)
    normals = _Normals(plan, seeds, tapes, shape, device)
    log_e = {i: log_factor(plan, i, _variances(tapes, i)) for i in drawn if plan.rows[i].learned}
    free = None if mask is None else mask.double()
    made: dict[str, Tensor] = {}
    if "log_prob" in record:
        sums = [
            total(t.log_density(t.from_normals(normals.of(i)), log_e.get(i)), plan, i, free)
            for i, t in drawn.items()
        ]
        made["log_prob"] = torch.stack(sums, dim=1)
    if "trajectory" in record:
        made["trajectory"] = states = stacked(tapes)
        moments = [
            _moments(
                t, i, states[:, i], normals, kept_slots(plan), log_e.get(i), _kept(plan, i, mask)
            )
            for i, t in drawn.items()
        ]
        if moments:
            means, stds = zip(*moments, strict=True)
            made |= {"mean": torch.stack(means, 1), "std": torch.stack(stds, 1)}
    if "noise" in record:
        made["noise"] = normals.all()
    return Rollout(
        rows=tuple(drawn), labels=labels(plan, drawn), slots=kept_slots(plan), plans=tuple(plans),
        seeds=tuple(seeds), conditions=tuple(conditions), dtype=dtype, mask=mask, **made,
    )  # fmt: skip


def total(density: Tensor, plan: Plan, row: int, free: Tensor | None) -> Tensor:
    """The sum of densities [n, C, *pixel] over the elements that a row is free to draw."""
    if free is not None and plan.rows[row].known:
        density = torch.where(free > 0.0, density, 0.0)
    return density.flatten(1).sum(1)


def log_factor(plan: Plan, row: int, variance: Tensor) -> Tensor:
    """log e of a learned variance, of the output that it is made of."""
    learned = plan.rows[row].learned
    assert learned is not None
    return learned[0] + learned[1] * variance.double()


def labels(plan: Plan, rows: Collection[int]) -> Tensor:
    """What the network was told in some rows, or last before them."""
    told, last = {}, 0.0
    for i, row in enumerate(plan.rows):
        last = told[i] = row.call.label if row.call else last
    return torch.tensor([told[i] for i in rows], dtype=torch.float64)


def _variances(tapes: Sequence[Tape], row: int) -> Tensor:
    return torch.stack([tape.variances[row] for tape in tapes])


def _kept(plan: Plan, row: int, mask: Tensor | None) -> Tensor | None:
    """Where a row keeps a known region."""
    return mask == 0.0 if mask is not None and plan.rows[row].known else None


def _moments(
    transition: Transition, row: int, after: Tensor, normals: _Normals, slots: Sequence[int],
    log_e: Tensor | None, kept: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mean and standard deviation of what a row drew, [n, K C, *pixel].

    after  the state that it drew
    kept   the elements that it did not draw
    """
    w, means, stds = transition.from_normals(normals.of(row)), [], []
    factor = None if log_e is None else log_e.exp()
    for slot, state in zip(slots, after.chunk(len(slots), dim=1), strict=True):
        std = torch.full_like(state[:1, :, *[slice(1)] * (state.ndim - 2)], transition.std(slot))
        stds.append(std.expand(len(state), *std.shape[1:]) if factor is None else std * factor)
        if slot not in transition.slots:
            means.append(state)
            continue
        noise = transition.noise(slot, w)
        mean = state.double() - (noise if factor is None else noise * factor)
        means.append((mean if kept is None else torch.where(kept, state, mean)).to(state.dtype))
    return torch.cat(means, 1), torch.cat(stds, 1).to(after.dtype)


class _Normals:
    """The normals of samples: those they were given, or those of their seeds."""

    def __init__(
        self, plan: Plan, seeds: Sequence[int], tapes: Sequence[Tape], shape: Shape,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.plan, self.tapes, self.shape = plan, tapes, shape
        self.out = torch.empty(len(seeds), *shape, device=device)
        signed = [seed - (seed >> 63 << 64) for seed in seeds]
        own = NoiseArgs(self.out, torch.tensor(signed, device=device))
        self.draw = resolve("noise", "auto", own)

    def one(self, row: int, m: int) -> Tensor:
        """[n, C, *pixel] float32, normal m of a row."""
        if (row, m) in self.tapes[0].noise:
            return torch.stack([tape.noise[row, m] for tape in self.tapes])
        self.draw(self.plan.rows[row].key, m)
        return self.out.clone()

    def of(self, row: int) -> Mapping[int, Tensor]:
        """In float64 by m, of what a row draws."""
        drawn = (m for m in range(layout.NORMALS) if self.plan.draws[row] >> m & 1)
        return {m: self.one(row, m).double() for m in drawn}

    def all(self) -> Tensor:
        """[R, draws, n, C, *pixel], with zeros where a row reads none."""
        plan = self.plan
        count = max(drawn.bit_length() for drawn in plan.draws)
        made = self.out.new_zeros(len(plan.rows), count, *self.out.shape)
        for row, drawn in enumerate(plan.draws):
            for m in range(count):
                if drawn >> m & 1:
                    made[row, m] = self.one(row, m)
        return made
