"""The ops as torch operators, `torch.ops.diffusion_engine.step` and `.noise`.

torch.compile and torch.export see them as one node each. `register()` defines them; importing the
package does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from .noise import NoiseArgs
from .registry import resolve
from .step import StepArgs, Table

STEP = (
    "step(Tensor(a!) slots, Tensor(b!) row, Tensor seed, Tensor coef, Tensor index, Tensor labels, "
    "Tensor[] outs, *, Tensor? src=None, Tensor? dst=None, Tensor(c!)? net_in=None, "
    "Tensor(d!)? label=None, Tensor? noise=None, Tensor? mask=None, Tensor? known=None, "
    "Tensor(e!)? denoised=None, Tensor(f!)? status=None, Tensor(g!)? ticket=None, int normals=2, "
    "int inputs=1, bool learned=False) -> ()"
)
NOISE = "noise(Tensor(a!) out, Tensor seed, int key, int m=0) -> ()"


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


def _noise(out: Tensor, seed: Tensor, key: int, m: int = 0) -> None:
    resolve("noise", "auto", NoiseArgs(out, seed))(key, m)


def _fake_noise(out: Tensor, seed: Tensor, key: int, m: int = 0) -> None:
    NoiseArgs(out, seed)


@cache
def register() -> torch.library.Library:
    """Defines the operators once; keep nothing, the library lives as long as the process."""
    library = torch.library.Library("diffusion_engine", "DEF")
    for schema, run, fake in ((STEP, _step, _fake_step), (NOISE, _noise, _fake_noise)):
        name = library.define(schema)
        library.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"diffusion_engine::{name}", fake, lib=library)
    return library
