"""A row of a plan: one network call and what the slots become of it. Host only, float64, no tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..ops import layout
from ..processes import Point
from .linear import Linear

CELLS = 1 << layout.DEPTH
# (path, first cell, last cell) of a Brownian path, see brownian.py
Span = tuple[int, int, int]
LISTS = ("p", "q", "e", "channel_blocks", "branches", "clip", "learned", "known")


@dataclass(frozen=True)
class Call:
    """A network call: the law of the state it reads, and what the network is given.

    at     the point (t, alpha, sigma) of the state
    read   the slots the network reads, at most two, joined on the channel axis
    c_in   the input scale of each
    label  the number the network is given for the time
    end_label  the number it is given for the end of its step; None where it is told none
    until  the point of that end
    """

    at: Point
    label: float
    read: tuple[int, ...] = (0,)
    c_in: tuple[float, ...] = (1.0,)
    end_label: float | None = None
    until: Point | None = None

    @property
    def labels(self) -> tuple[float, float]:
        """The label and the end label, 0 where there is none."""
        return self.label, 0.0 if self.end_label is None else self.end_label


@dataclass(frozen=True)
class Row:
    """One network call and one update of the slots.

    call      the call whose outputs the row uses; None for a first row, or one that moves slots alone
    new       slot -> its new content in terms of old slots, "D", "raw", "z0", "z1"
    p         denoised: weight of each slot
    q         denoised: weight of each output
    e         raw: weight of each output
    channel_blocks  of each output, which of the network's it is, its prediction being 0
    branches  the branch (0 the condition, 1 none, further concepts) whose entry holds each output
    clip      denoised is clipped to this range, then multiplied by `scale`
    learned   (v0, v1, j): normals are multiplied by exp(v0 + v1 out[j])
    known     (u0, u1): the known region of slot 0 becomes u0 known + u1 z
    key       names the row's normals; independent of the row's position
    state     the law of slot 0 after the row; None while slot 0 holds a partial sum
    guider    (name, numbers) of what gives the outputs their weights between the call and the step, from sums
              of each sample (guiders/): q and e are those of each branch alone then
    unconditional  raw is of the branch without a condition alone, where the row calls that (CFG++)
    spans     of each normal, the interval of a Brownian path whose increment it is with
              noise="brownian"; None, or no entry, where it stays the row's own
    """

    call: Call | None
    new: dict[int, Linear]
    p: tuple[float, ...] = ()
    q: tuple[float, ...] = ()
    e: tuple[float, ...] = ()
    channel_blocks: tuple[int, ...] = ()
    branches: tuple[int, ...] = ()
    clip: tuple[float, float] | None = None
    scale: float = 1.0
    learned: tuple[float, float, int] | None = None
    known: tuple[float, float] | None = None
    key: int = 0
    state: Point | None = None
    spans: tuple[Span | None, ...] = ()
    guider: tuple[str, tuple[float, ...]] | None = None
    unconditional: bool = False

    @property
    def entries(self) -> tuple[int, ...]:
        """The branches the row calls the network for, each once."""
        return tuple(sorted(set(self.branches)))

    def draws(self, m: int) -> bool:
        """Whether the row uses normal m."""
        return any(update[f"z{m}"] != 0.0 for update in self.new.values())


def to_dict(row: Row) -> dict[str, Any]:
    """The row as JSON-able values."""

    def point(p: Point | None) -> list[float] | None:
        return None if p is None else [p.t, p.alpha, p.sigma]

    call = row.call and {
        "at": point(row.call.at),
        "label": row.call.label,
        "read": row.call.read,
        "c_in": row.call.c_in,
    }
    if call and row.call and row.call.end_label is not None:
        call |= {"end_label": row.call.end_label, "until": point(row.call.until)}
    return {
        "call": call,
        "new": {str(k): dict(update.weights) for k, update in row.new.items()},
        **{name: getattr(row, name) for name in (*LISTS, "scale", "key")},
        "state": point(row.state),
        "spans": row.spans,
        **({} if row.guider is None else {"guider": row.guider}),
        **({"unconditional": True} if row.unconditional else {}),
    }


def from_dict(body: dict[str, Any]) -> Row:
    """The row of `to_dict`."""
    call = body["call"] and _call(body["call"])
    tuples: dict[str, Any] = {n: None if body[n] is None else tuple(body[n]) for n in LISTS}
    return Row(
        call=call,
        new={int(k): Linear.of(update) for k, update in body["new"].items()},
        **tuples,
        scale=body["scale"],
        key=body["key"],
        state=body["state"] and Point(*body["state"]),
        spans=tuple(span and tuple(span) for span in body.get("spans", ())),
        guider=_guider(body.get("guider")),
        unconditional=body.get("unconditional", False) is True,
    )


def _call(body: dict[str, Any]) -> Call:
    until = body.get("until")
    return Call(
        Point(*body["at"]),
        body["label"],
        tuple(body["read"]),
        tuple(body["c_in"]),
        body.get("end_label"),
        until and Point(*until),
    )


def _guider(given: Any) -> tuple[str, tuple[float, ...]] | None:
    if given is None:
        return None
    name, numbers = given
    return str(name), tuple(map(float, numbers))
