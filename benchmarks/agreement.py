"""All contenders compute the same before anything is timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion_engine.ops import registry

TOLERANCE = 1e-4  # of a peer, relative to the largest element


class Disagreement(RuntimeError):
    """A contender computes something else; there is nothing to compare."""


def check_bits(op: str, backend: str, args: Any, *given: Any) -> None:
    """Raises Disagreement unless a backend's launch fills args.out with the bits of the reference.

    given  the arguments of the launch
    """
    registry.resolve(op, backend, args)(*given)
    got = args.out.clone()
    registry.resolve(op, "torch", args)(*given)
    if not torch.equal(got, args.out):
        raise Disagreement(f"{backend}: {op} differs from the reference")


def errors(
    op: str, contenders: Mapping[str, Callable[[], Tensor]], bound: float, exact: Tensor
) -> dict[str, float]:
    """The error of each contender, relative to the largest element of `exact`, which is in float64.

    Raises Disagreement unless the engine's are within the bound, and the others within that or TOLERANCE.
    """
    size = float(exact.abs().max())
    found = {}
    for name, run in contenders.items():
        made = run()
        error = float((made.double() - exact).abs().max())
        theirs = (TOLERANCE + 2 * torch.finfo(made.dtype).eps) * size
        allowed = bound if name.startswith("ours:") else max(bound, theirs)
        if not error <= allowed:
            raise Disagreement(f"{name}: {op} has the error {error:.2g}, {allowed:.2g} is allowed")
        found[name] = error / size
    return found


def difference(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest element of `want`."""
    return float((got.double() - want).abs().max() / want.abs().max())


@dataclass(frozen=True)
class Sums:
    """One layer by the plain float32 sum, by torch, by the engine, and in float64."""

    op: str
    shape: tuple[int, ...]
    plain: Tensor
    torch: Tensor
    engine: Tensor
    exact: Tensor
