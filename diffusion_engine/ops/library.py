"""The ops as torch operators, `torch.ops.diffusion_engine.step` and so on.

torch.compile and torch.export see them as one node each. `register()` defines them; importing the
package does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from threading import Lock

import torch
from torch import Tensor

from . import attention, conv3x3, functional, group_norm
from .brownian import BrownianArgs
from .noise import NoiseArgs
from .registry import resolve
from .step import StepArgs, Table

STEP = (
    "step(Tensor(a!) slots, Tensor(b!) row, Tensor seed, Tensor coef, Tensor index, Tensor labels, "
    "Tensor[] outs, *, Tensor? src=None, Tensor? dst=None, Tensor(c!)? net_in=None, "
    "Tensor(d!)? label=None, Tensor? noise=None, Tensor? given=None, Tensor? mask=None, "
    "Tensor? known=None, Tensor(e!)? denoised=None, Tensor(f!)? status=None, "
    "Tensor(g!)? ticket=None, int normals=2, int inputs=1, bool learned=False) -> ()"
)
NOISE = (
    "noise(Tensor(a!) out, Tensor seed, int key, int m=0, *, Tensor? row=None, Tensor? index=None) "
    "-> ()"
)
BROWNIAN = "brownian(Tensor(a!) out, Tensor seed, Tensor row, Tensor terms, Tensor weight) -> ()"
GROUP_NORM = (
    "group_norm(Tensor x, int groups, Tensor? weight=None, Tensor? bias=None, float eps=1e-05, *, "
    "bool silu=False, Tensor? scale=None, Tensor? shift=None, Tensor? residual=None) -> Tensor"
)
ADD_GROUP_NORM = (
    "add_group_norm(Tensor x, Tensor residual, int groups, Tensor? weight=None, Tensor? bias=None, "
    "float eps=1e-05, *, bool silu=False, Tensor? scale=None, Tensor? shift=None) -> (Tensor, Tensor)"
)
ATTENTION = "attention(Tensor q, Tensor k, Tensor v, float? scale=None) -> Tensor"
CONV3X3 = (
    "conv3x3(Tensor x, Tensor weight, Tensor packed, Tensor? bias=None, "
    "Tensor? residual=None) -> Tensor"
)


def _step_args(
    slots: Tensor, row: Tensor, seed: Tensor, coef: Tensor, index: Tensor, labels: Tensor,
    outs: Sequence[Tensor], **others: Tensor | int | bool | None,
) -> StepArgs:  # fmt: skip
    args = StepArgs(slots, row, seed, Table(coef, index, labels), **others)  # type: ignore[arg-type]
    args.check_outputs(outs)
    return args


def _step(*tensors: Tensor, **others: Tensor | int | bool | None) -> None:
    resolve("step", "auto", _step_args(*tensors, **others))(tensors[6])  # type: ignore[arg-type]


def _fake_step(*tensors: Tensor, **others: Tensor | int | bool | None) -> None:
    _step_args(*tensors, **others)  # type: ignore[arg-type]


def _noise(out: Tensor, seed: Tensor, key: int, m: int = 0, **rows: Tensor | None) -> None:
    resolve("noise", "auto", NoiseArgs(out, seed, **rows))(key, m)


def _fake_noise(out: Tensor, seed: Tensor, key: int, m: int = 0, **rows: Tensor | None) -> None:
    NoiseArgs(out, seed, **rows)


def _brownian(*tensors: Tensor) -> None:
    resolve("brownian", "auto", BrownianArgs(*tensors))()


def _fake_brownian(*tensors: Tensor) -> None:
    BrownianArgs(*tensors)


def _fake_group_norm(x: Tensor, groups: int, *rest: object, **others: object) -> Tensor:
    group_norm.check(x, groups)
    return torch.empty_like(x)


def _fake_add_group_norm(
    x: Tensor, residual: Tensor, groups: int, *rest: object, **others: object
) -> tuple[Tensor, Tensor]:
    group_norm.check(x, groups)
    return torch.empty_like(x), torch.empty_like(x)


def _fake_attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    attention.check(q, k, v)
    batch, heads, queries, dim = q.shape
    return q.new_empty(batch, queries, heads, dim).transpose(1, 2)


def _fake_conv3x3(x: Tensor, weight: Tensor, packed: Tensor, *rest: object) -> Tensor:
    conv3x3.check(x, weight, packed)
    return functional.like(x, weight.shape[0])


_registering = Lock()


def register() -> torch.library.Library:
    """Defines the operators once; keep nothing, the library lives as long as the process."""
    with _registering:
        return _defined()


@cache
def _defined() -> torch.library.Library:
    library = torch.library.Library("diffusion_engine", "DEF")
    operators = (
        (STEP, _step, _fake_step),
        (NOISE, _noise, _fake_noise),
        (BROWNIAN, _brownian, _fake_brownian),
        (GROUP_NORM, functional.group_norm, _fake_group_norm),
        (ADD_GROUP_NORM, functional.add_group_norm, _fake_add_group_norm),
        (ATTENTION, functional.attention, _fake_attention),
        (CONV3X3, functional.conv3x3, _fake_conv3x3),
    )
    for schema, run, fake in operators:
        name = library.define(schema)
        library.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"diffusion_engine::{name}", fake, lib=library)
    return library
