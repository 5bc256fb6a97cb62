"""How likely a recorded run is under a network as it is now, with gradients."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from ..networks.network import HALF, Condition, ScoreNetwork
from ..networks.placement import compute_dtype, evaluating, first_weight
from ..networks.wrapper import unwrapped
from ..ops import philox
from ..plan import Plan, Row
from .recorded import log_factor, total
from .rollout import Rollout
from .transition import Transition, transitions


def log_prob(
    rollout: Rollout, network: ScoreNetwork, rows: Collection[int] | None = None
) -> Tensor:
    """[n, len(rows)] float64, the log-density of what each row of a rollout drew, under a network's weights.

    rollout  with its trajectory
    network  called alike as the one that was sampled, in eval mode; its weights are what is differentiated
    rows     some of rollout.rows, in any order; None are all

    Each row starts from the state that was recorded. What earlier calls left in other slots (predictions of a
    multistep solver, a first stage) is made again of the states recorded there, so that it has its gradient
    too. A row is one call of all samples, as many as the chosen rows and their past need, and the graph of
    them all is held until the derivative is taken: choose rows, or `rollout.select` samples, to hold less.
    Raises ValueError where no trajectory was recorded, or a row is none of the rollout's.
    """
    chosen = rollout.rows if rows is None else tuple(rows)
    if unknown := [row for row in chosen if row not in rollout.rows]:
        raise ValueError(
            f"rows={list(chosen)}: {unknown} draw nothing; rollout.rows are {rollout.rows}"
        )
    if not chosen:
        return torch.zeros(rollout.n, 0, dtype=torch.float64, device=rollout.states.device)
    module = network.module
    with evaluating(module, unwrapped(module)):
        made = _Replay(rollout, network).run(frozenset(chosen))
    return torch.stack([made[row] for row in chosen], dim=1)


def wanted(
    plan: Plan, drawn: Mapping[int, Transition], chosen: Collection[int]
) -> dict[int, frozenset[int]]:
    """By row, the slots that have to be made again for the densities of chosen rows.

    A slot that tells what its row drew is recorded, and what it was made of is not asked for on its account.
    """
    needed: set[int] = set()
    made = {}
    for i in range(len(plan.rows) - 1, 0, -1):
        row, told = plan.rows[i], set(drawn[i].told) if i in drawn else set()
        slots = {k for k in row.new if k in needed and k not in told}
        if i in chosen or (i in drawn and slots & set(drawn[i].slots)):
            slots |= told  # w, of which other slots are made, is told by these
        needed -= row.new.keys()
        if slots:
            made[i] = frozenset(slots)
            needed |= _reads(row, slots)
    return made


def _reads(row: Row, slots: Collection[int]) -> set[int]:
    """What some new slots of a row are made of."""
    found = {int(s[1:]) for k in slots for s, _ in row.new[k] if s[0] == "S"}
    if _calls(row, slots) and row.call:
        found |= set(row.call.read) | {k for k, p in enumerate(row.p) if p}
    return found


def _calls(row: Row, slots: Collection[int]) -> bool:
    """Whether some new slots of a row are made of outputs of its call."""
    by_output = any(s in ("D", "raw") for k in slots for s, _ in row.new[k])
    drawn = any(s[0] == "z" for k in slots for s, _ in row.new[k])
    return by_output or (drawn and row.learned is not None)


class _Replay:
    """The rows of a rollout in torch, float64, each from the states that were recorded."""

    def __init__(self, rollout: Rollout, network: ScoreNetwork) -> None:
        self.rollout, self.network = rollout, network
        self.plan = rollout.plans[
            0
        ]  # all have its slots and draws, and each its own mixture of outputs
        self.drawn = transitions(self.plan)
        groups: dict[int, tuple[Plan, list[int]]] = {}
        for i, plan in enumerate(rollout.plans):
            groups.setdefault(id(plan), (plan, []))[1].append(i)
        device = rollout.states.device
        self.groups = [(p, torch.tensor(group, device=device)) for p, group in groups.values()]
        order = torch.cat([group for _, group in self.groups])
        self.place = torch.empty_like(order).index_copy_(
            0, order, torch.arange(len(order), device=device)
        )
        own, module = rollout.dtype, network.module
        self.dtype = own if first_weight(module) is None else compute_dtype(module, own)
        self.free = None if rollout.mask is None else rollout.mask.double()

    def recorded(self, row: int, slot: int) -> Tensor:
        """[n, C, *pixel] float64, a slot after a row."""
        parts = self.rollout.states[:, row].chunk(len(self.rollout.slots), dim=1)
        return parts[self.rollout.slots.index(slot)].double()

    def run(self, chosen: frozenset[int]) -> dict[int, Tensor]:
        """The log-densities [n] of chosen rows."""
        todo = wanted(self.plan, self.drawn, chosen)
        state = {slot: self.recorded(0, slot) for slot in self.plan.rows[0].new}
        made = {}
        for i, row in enumerate(self.plan.rows):
            if not i:
                continue
            new = self.means(i, state, todo[i]) if i in todo else {}
            if i in self.drawn:
                told = {k: self.recorded(i, k) for k in self.drawn[i].told}
                density = self.settle(i, new, told) if i in todo else None
                if i in chosen and density is not None:
                    made[i] = total(density, self.plan, i, self.free)
                new |= told
            elif row.known and 0 in new and self.free is not None:
                new[0] = torch.where(self.free > 0.0, new[0], self.recorded(i, 0))
            state = {k: v for k, v in state.items() if k not in row.new} | new
            state.pop("log_e", None)  # type: ignore[call-overload]
        return made

    def settle(self, i: int, new: dict, told: Mapping[int, Tensor]) -> Tensor | None:
        """The density of each element of what a row drew; slots that follow from it are put into `new`."""
        transition, log_e = self.drawn[i], new.pop("log_e", None)
        if not told.keys() <= new.keys():
            return None
        w = transition.from_states({k: told[k] - new[k] for k in told}, log_e)
        for slot in new.keys() - told.keys():
            if slot in transition.slots:
                noise = transition.noise(slot, w)
                new[slot] = new[slot] + (noise if log_e is None else noise * log_e.exp())
        return transition.log_density(w, log_e)

    def means(self, i: int, state: Mapping[int, Tensor], slots: Collection[int]) -> dict:
        """New slots of a row without their noise, and `log_e`, the log of a learned variance's factor."""
        row = self.plan.rows[i]
        symbols = {f"S{k}": slot for k, slot in state.items()}
        made: dict = {}
        if row.call and _calls(row, slots):
            symbols["D"], symbols["raw"], variance = self.outputs(i, state)
            if row.learned:
                made["log_e"] = log_factor(self.plan, i, variance)
        zero = torch.zeros_like(self.recorded(0, 0))
        for k in slots:
            terms = (w * symbols[s] for s, w in row.new[k] if s[0] != "z")
            made[k] = sum(terms, zero)
        return made

    def outputs(self, i: int, state: Mapping[int, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """denoised, raw and the output of a learned variance of all samples, of one call."""
        entries = [(plan, group, b) for plan, group in self.groups for b in plan.rows[i].entries]
        out = self.call(i, state, entries)
        made, first = [], 0
        for plan, group in self.groups:
            row = plan.rows[i]
            each = {}
            for branch in row.entries:
                each[branch] = out[first : first + len(group)]
                first += len(group)
            made.append(mixed(row, {k: v[group] for k, v in state.items()}, each))
        return tuple(torch.cat(parts)[self.place] for parts in zip(*made, strict=True))  # type: ignore[return-value]

    def call(
        self, i: int, state: Mapping[int, Tensor], entries: Sequence[tuple[Plan, Tensor, int]]
    ) -> Tensor:
        """What the network returns, its channel blocks side by side, float64."""
        call, network = self.plan.rows[i].call, self.network
        assert call is not None
        held = self.rollout.states.dtype
        read = [c * state[k].to(held) for k, c in zip(call.read, call.c_in, strict=True)]
        x = torch.cat(read, dim=1).to(self.dtype)
        index = torch.cat([group for _, group, _ in entries])
        label_dtype = torch.float32 if network.label_dtype in HALF else network.label_dtype
        told = [call.label, *([] if call.end_label is None else [call.end_label])]
        label, *end = (
            torch.full((len(index),), one, dtype=torch.float64, device=x.device).to(label_dtype)
            for one in told
        )
        condition = self.condition([(group, branch) for _, group, branch in entries])
        latent = self.latent(i)
        outs = network(x[index], label, condition, None if latent is None else latent[index], *end)
        return torch.cat([out.double() for out in outs], dim=1)

    def condition(self, entries: Sequence[tuple[Tensor, int]]) -> Condition | None:
        """Of the entries of a call, (samples, branch)."""
        given = self.rollout.conditions
        if not given or given[0] is None:
            return None
        parts = [(given[branch], group) for group, branch in entries]
        if isinstance(given[0], Mapping):
            return {k: torch.cat([c[k][group] for c, group in parts]) for k in given[0]}  # type: ignore[index]
        return torch.cat([c[group] for c, group in parts])  # type: ignore[index]

    def latent(self, i: int) -> Tensor | None:
        """[n, size], the latent that the samples drew for a row's call."""
        size = self.network.parameterisation.latent
        if not size:
            return None
        signed = [seed - (seed >> 63 << 64) for seed in self.rollout.seeds]
        seeds = torch.tensor(signed, device=self.rollout.states.device)
        keys = torch.full_like(seeds, self.plan.rows[i].key)
        return philox.normals(seeds, keys, philox.LATENT, size).to(self.dtype)


def mixed(
    row: Row, state: Mapping[int, Tensor], outs: Mapping[int, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """denoised, raw and the output of a learned variance, as a row mixes them.

    outs  by branch [n, channel blocks x C, *pixel]
    """
    some = next(iter(state.values()))
    channels, zero = some.shape[1], torch.zeros_like(some)
    outputs = [
        outs[branch][:, block * channels : (block + 1) * channels]
        for branch, block in zip(row.branches, row.channel_blocks, strict=True)
    ]
    denoised = sum((p * state[k] for k, p in enumerate(row.p) if p), zero)
    denoised = sum((q * out for q, out in zip(row.q, outputs, strict=True) if q), denoised)
    if row.clip:
        denoised = denoised.clamp(*row.clip)
    raw = sum((e * out for e, out in zip(row.e, outputs, strict=bool(row.e)) if e), zero)
    return row.scale * denoised, raw, outputs[row.learned[2]] if row.learned else zero
