"""The times at which a network is trained."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ... import checks
from ...processes import GaussianProcess


def spread(n: int, generator: torch.Generator, groups: int = 1) -> Tensor:
    """n numbers of [0, 1), each uniform and together evenly spread: (u + i / n) mod 1, one u for the batch,
    or for each of `groups` equal parts of it.

    The mean over a batch then estimates an integral over them with little variance (VDM, Kingma et al. 2021,
    app. I.1).

    Returns:
        [n] float64.
    """
    u = torch.rand((groups, 1), dtype=torch.float64, generator=generator)
    size = n // max(groups, 1)
    return ((u + torch.arange(size, dtype=torch.float64) / max(size, 1)) % 1.0).flatten()


def times(process: GaussianProcess, n: int, generator: torch.Generator, groups: int = 1) -> Tensor:
    """n times, each uniform on (t_min, t_max) and together evenly spread over it, [n] float64."""
    return process.t_min + (process.t_max - process.t_min) * spread(n, generator, groups)


def drawn_times(
    process: GaussianProcess,
    n: int,
    generator: torch.Generator,
    law: dict[str, Any] | None = None,
    groups: int = 1,
) -> Tensor:
    """n times of a law, [n] float64, within the process's range.

    n    0 or more
    generator  of uniform numbers, on the CPU
    law  None: uniform in t. {"name": "lognormal", "mean": m, "std": s}: log(sigma / alpha) ~ N(m, s^2)
         (Karras et al. 2022, table 1). {"name": "logit_normal", "mean": m, "std": s}: logit t ~ N(m, s^2)
         (Esser et al. 2024, eq. 19)
    groups  equal parts of them, each evenly spread by itself; n of them are independent

    Raises ValueError where the law is not known.
    """
    if law is None:
        return times(process, n, generator, groups)
    options = dict(law)
    name = checks.one_of("times", options.pop("name", None), ("lognormal", "logit_normal"))
    checks.names(name, options, ("mean", "std"))
    mean, std = float(options.get("mean", 0.0)), float(options.get("std", 1.0))
    # The normal's quantiles of evenly spread numbers are evenly spread as well.
    u = spread(n, generator, groups).clamp(1e-9, 1.0 - 1e-9)
    drawn = mean + std * math.sqrt(2.0) * torch.erfinv(2.0 * u - 1.0)
    t = torch.sigmoid(drawn)
    if name == "lognormal":
        t = torch.from_numpy(process.t_of_lam(-drawn.numpy()))
    return t.clamp(process.t_min, process.t_max)
