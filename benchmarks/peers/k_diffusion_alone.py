"""k-diffusion's functions alone: its package loads others that none of them uses."""

from __future__ import annotations

import sys
import types
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

from torch import Tensor


def _append_dims(x: Tensor, n: int) -> Tensor:
    return x[(..., *[None] * (n - x.ndim))]


def modules() -> tuple[Any, Any] | None:
    """k_diffusion.sampling and .external; None where k-diffusion, torchsde or torchdiffeq is missing."""
    known = sys.modules.get("k_diffusion")
    if hasattr(known, "sampling") and hasattr(known, "external"):
        return known.sampling, known.external
    found = PathFinder.find_spec("k_diffusion")
    if not found or not (find_spec("torchsde") and find_spec("torchdiffeq")):
        return None
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    vars(package).update(__path__=list(found.submodule_search_locations or ()), utils=utils)
    vars(utils).update(append_dims=_append_dims)
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    made = []
    for name in ("sampling", "external"):
        spec = find_spec(f"k_diffusion.{name}")
        assert spec is not None and spec.loader is not None
        module = sys.modules[spec.name] = module_from_spec(spec)
        setattr(package, name, module)
        spec.loader.exec_module(module)
        made.append(module)
    return made[0], made[1]
