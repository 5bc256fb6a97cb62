"""A window of a plan's calls as the points of one fixed-point problem: what drivers share that are parallel
in time.

The rows of a plan, S the slots and u_i what call i reads of them,

    S_i = A_i S_{i-1} + d_i D_i(u_i) + e_i raw_i(u_i) + C_i z_i

are linear but for the predictions y_i = (D_i, raw_i). One call of the network makes those of a whole window,
each where its point is now, at u_i^k. A line is put through each,

    y_i(u) ~ y_i(u_i^k) + J_i^k (u - u_i^k),

and with these the rows are solved exactly from the window's start on, in float64: the prefix sum of a linear
recursion. It says where the points are next, u_i^{k+1}. What a solver keeps in slots, a stage or a history of
predictions, is so that of the current iterate, also where it is from before the window, so that every solver
ends where its own run does: u_1 is given, y_1 and so u_2 are exact after one iteration, and the first k
points after k of them, whatever J.

The slopes J decide how many iterations the others take:

    increments  (1 - a) / d of a row a x + d D, with which the step moves as far as its start: then
                x_j = x_b + sum_{i<j} (Phi_i(x_i^k) - x_i^k), the Picard iteration of Shih et al. 2023, alg. 1
    frozen      0, as exponential integrators take D
    secant      of the last two iterates, in every element e: (du_e dy_e + v m) / (du_e^2 + v), v the mean of
                du^2 and m = <du, dy> / <du, du>, the secant of the whole sample. For D it lies in
                [0, 2 / alpha], dD / dx = (alpha / sigma^2) Cov[x0 | x] being no less than 0, and it begins
                with alpha / (alpha^2 + sigma^2), that of data of unit variance; for a raw output accordingly
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..ops import layout
from . import sums
from .links import FROZEN, INCREMENTS, SECANT, Link

KNOWN = layout.NORMALS  # the number of the normal of the known region

# (key of a row, m) -> the normal m that it draws
Normals = Callable[[int, int], Tensor]
Slots = list[Tensor]


def dots(x: Tensor, y: Tensor) -> Tensor:
    """<x_i, y_i> of points, [n] float64, of differences that are exact enough in float32."""
    return sums.dots(x.float(), y.float())


class Window:
    """Points of a run, those of the calls `base` to `base + len(self)`. Tensors are float64, with the points
    on the first axis.

    links  of the run
    width  points at most
    start  [K, C, *pixel], the slots behind the plan's first row
    rule   of the slopes
    read   [n, I, C, *pixel], u^k
    made   [n, 2, C, *pixel], y(u^k)
    scales sqrt(alpha^2 + sigma^2) at each of the links
    """

    read: Tensor

    def __init__(
        self, links: Sequence[Link], width: int, start: Tensor, rule: str, normals: Normals,
        mask: Tensor | None = None, known: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.links, self.width, self.rule, self._normals = list(links), width, rule, normals
        self._mask, self._known = mask, known
        self.base, self.slots = 0, list(start.double().clone())
        nothing = torch.zeros_like(self.slots[0])
        self.slots += [nothing] * (layout.SLOTS - len(self.slots))
        self._secant = rule == SECANT and len(links[0].read) == 1
        self._drawn: dict[int, list[Slots]] = {}
        self._coefficients(nothing)
        zero = torch.stack([nothing, nothing])
        self.read = nothing.new_zeros(0, len(links[0].read), *nothing.shape)
        self.made = self._before = self.slope = nothing.new_zeros(0, 2, *nothing.shape)
        self._last = self.read
        self._extend(self.slots, zero)

    def __len__(self) -> int:
        return len(self.read)

    @property
    def ended(self) -> bool:
        return self.base == len(self.links)

    def _coefficients(self, like: Tensor) -> None:
        """Of every call, as tensors that broadcast over a sample."""
        most = max(len(link.row.q) for link in self.links)

        def column(values: list[Sequence[float]]) -> Tensor:
            made = torch.tensor(values, dtype=torch.float64, device=like.device)
            return made.reshape(*made.shape, *(1,) * like.ndim)

        def padded(given: Sequence[float]) -> list[float]:
            return [*given, *[0.0] * (most - len(given))]

        rows = [link.row for link in self.links]
        self._p = column([link.p for link in self.links])
        self._q, self._e = (column([padded(getattr(r, n)) for r in rows]) for n in "qe")
        clips = [row.clip or (-math.inf, math.inf) for row in rows]
        self._clip = column([(*clip, row.scale) for clip, row in zip(clips, rows, strict=True)])
        self._slope = column([link.slope(self.rule) for link in self.links])
        bounds = [link.bounds() for link in self.links]
        self._low, self._high = (column([[b[i] for b in of] for of in bounds]) for i in (0, 1))
        self.scales = np.array([link.scale for link in self.links])

    def evaluate(self, outs: Sequence[Sequence[Tensor]]) -> None:
        """Takes the outputs [C, *pixel] of each point's call at `read`."""
        here, most = slice(self.base, self.base + len(self)), self._q.shape[1]
        nothing = torch.zeros_like(outs[0][0])
        every = [out for own in outs for out in (*own, *[nothing] * (most - len(own)))]
        stacked = torch.stack(every).double().unflatten(0, (len(self), most))
        low, high, scale = self._clip[here].unbind(1)
        made = (self._p[here] * self.read).sum(1) + (self._q[here] * stacked).sum(1)
        made = made.clamp(low, high) * scale
        self.made = torch.stack([made, (self._e[here] * stacked).sum(1)], 1)
        for i, link in enumerate(self.links[here]):
            if link.row.learned is not None:
                v0, v1, j = link.row.learned
                factor = (v0 + v1 * stacked[i, j]).exp()
                own = self._normals_of(self.base + i, link)[0]
                self._drawn[self.base + i][0] = [z * factor for z in own]
        if self._secant:
            self._take_secants(here)
        self._last, self._before = self.read, self.made

    def _take_secants(self, here: slice) -> None:
        du, dy = self.read - self._last, self.made - self._before
        low, high = self._low[here], self._high[here]
        both = dots(du.expand_as(dy).flatten(0, 1), dy.flatten(0, 1)).reshape(low.shape)
        size = dots(du, du).reshape(len(du), *low.shape[2:], 1)
        moved = size > 0.0
        size = size.where(moved, 1.0)
        mean, v = (both / size).clamp(low, high), size / du[0].numel()
        secant = ((du * dy + v * mean) / (du.square() + v)).clamp(low, high)
        self.slope = secant.where(moved, self.slope)

    def sweep(self) -> tuple[list[Slots], Tensor]:
        """The slots before each point and behind the last, and what the points read of them,
        [n, I, C, *pixel]."""
        slots, swept, after = self.slots, [self.slots], []
        lines = self.rule != FROZEN and self.read.shape[1] == 1
        for i, link in enumerate(self.links[self.base : self.base + len(self)]):
            u = torch.stack([slots[k] for k in link.read])
            y = self.made[i]
            if lines:
                y = torch.addcmul(y, self.slope[i], u - self.read[i])
            after.append(u)
            slots = self._step(self.base + i, link, slots, y)
            swept.append(slots)
        return swept, torch.stack(after)

    def moved(self, after: Tensor) -> list[float]:
        """Of each point how far it is from where its call was made: the root mean square in units of
        sqrt(alpha^2 + sigma^2)."""
        away = (after - self.read).flatten(1)
        squares = dots(away, away) / away.shape[1]
        here = self.scales[self.base : self.base + len(self)]
        return [math.sqrt(s) / scale for s, scale in zip(squares.tolist(), here, strict=True)]

    def slide(self, count: int, swept: list[Slots], read: Tensor) -> None:
        """Leaves the first `count` points behind.

        read  [n, I, C, *pixel], where the calls are made next
        """
        for i in range(self.base, self.base + count):
            self._drawn.pop(i, None)
        self.base, self.slots, last = self.base + count, swept[count], self.made[-1]
        self.read, self.made, self.slope = read[count:], self.made[count:], self.slope[count:]
        self._last, self._before = self._last[count:], self._before[count:]
        self._extend(swept[-1], last)

    def beyond(self, slots: Slots) -> Slots:
        """The slots at the end of the run, from those behind the last point, its prediction frozen."""
        ends = [slots, *(s for _, s in self._onward(slots, self.made[-1], len(self.links)))]
        return ends[-1]

    def _onward(self, slots: Slots, y: Tensor, stop: int) -> Iterator[tuple[Tensor, Slots]]:
        """Of calls from the last point's on what each would read, and the slots behind it."""
        for i in range(self.base + len(self), stop):
            link = self.links[i]
            u = torch.stack([slots[k] for k in link.read])
            raw = y[1] if link.raw is None else self._raw(link, u, y[0])
            slots = self._step(i, link, slots, torch.stack([y[0], raw]))
            yield u, slots

    def _extend(self, slots: Slots, y: Tensor) -> None:
        """New points behind the last, with a prediction frozen there, or where the last one is."""
        stop = min(self.base + self.width, len(self.links))
        if self.rule == INCREMENTS:
            fresh = [slots[0][None]] * (stop - self.base - len(self))
        else:
            fresh = [u for u, _ in self._onward(slots, y, stop)]
        if not fresh:
            return
        here = slice(self.base + len(self), self.base + len(self) + len(fresh))
        like = y.expand(len(fresh), *y.shape)
        self.read = torch.cat([self.read, torch.stack(fresh)])
        self._last = torch.cat([self._last, torch.stack(fresh)])
        self.made, self._before = torch.cat([self.made, like]), torch.cat([self._before, like])
        self.slope = torch.cat([self.slope, self._slope[here].expand_as(like)])

    @staticmethod
    def _raw(link: Link, u: Tensor, denoised: Tensor) -> Tensor:
        shares = (p * part for p, part in zip(link.p, u, strict=True))
        return (link.raw or 0.0) * (denoised - sum(shares, torch.zeros_like(denoised)))

    def _normals_of(self, i: int, link: Link) -> list[Slots]:
        """Of each row the normals z0, z1 and that of the known region, zero where it draws none."""
        if i not in self._drawn:
            nothing = torch.zeros_like(self.slots[0])
            every = range(KNOWN + 1)
            self._drawn[i] = [
                [
                    self._normals(row.key, m).double()
                    if (row.known is not None if m == KNOWN else row.draws(m))
                    else nothing
                    for m in every
                ]
                for row in link.rows
            ]
        return self._drawn[i]

    def _step(self, i: int, link: Link, slots: Slots, y: Tensor) -> Slots:
        """The slots behind a call and the rows after it."""
        normals = self._normals_of(i, link)
        for row, terms, z in zip(link.rows, link.terms, normals, strict=True):
            values = [*slots, y[0], y[1], *z]
            slots = list(slots)
            for k, sum_ in terms:
                slots[k] = _sum(sum_, values)
            if row.known is not None:
                assert self._mask is not None and self._known is not None
                u0, u1 = row.known
                kept = u0 * self._known + u1 * z[KNOWN]
                slots[0] = self._mask * slots[0] + (1.0 - self._mask) * kept
        return slots


def _sum(terms: list[tuple[int, float]], values: Slots) -> Tensor:
    if not terms:
        return torch.zeros_like(values[0])
    (place, weight), *rest = terms
    total = values[place] * weight
    for place, weight in rest:
        total = total.add(values[place], alpha=weight)
    return total
