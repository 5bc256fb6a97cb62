"""The noise that a scheduler's configuration describes, and what its networks are told and predict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...networks.prediction import Consistency, F, Trig
from ...processes import EDM, Discrete, FlowMatching, GaussianProcess, Point, TrigFlow
from .levels import Fields

PREDICTIONS = {
    "epsilon": "eps",
    "v_prediction": "v",
    "sample": "x0",
    "original_sample": "x0",
    "flow_prediction": "flow",
}


@dataclass(frozen=True)
class NegativeF(F):
    """EDM's inner network that predicts -F: EDMEulerScheduler's "v_prediction"."""

    def __call__(self, at: Point) -> tuple[float, float]:
        p, q = super().__call__(at)
        return p, -q


def inverted(at: Point) -> tuple[float, float]:
    """A network of straight paths that predicts x0 - eps: invert_sigmas."""
    total = at.alpha + at.sigma
    return 1.0 / total, at.sigma / total


@dataclass(frozen=True, kw_only=True)
class Angle(GaussianProcess):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2): IPNDMScheduler's."""

    t_min: float = 0.0
    t_max: float = 1.0

    def alpha(self, t: Any) -> Any:
        return np.where(np.asarray(t) == 1.0, 0.0, np.cos(0.5 * np.pi * np.asarray(t, np.float64)))

    def sigma(self, t: Any) -> Any:
        return np.sin(0.5 * np.pi * np.asarray(t, np.float64))

    def t_of_lam(self, lam: Any) -> Any:
        return 2.0 / np.pi * np.arctan(np.exp(-np.asarray(lam, np.float64)))


@dataclass(frozen=True)
class Learned:
    """What a configuration says of its networks; the names are ScoreNetwork's."""

    process: GaussianProcess
    prediction: Any
    label: str | Callable[[Point], float] = "t"
    clip: tuple[float, float] | None = None


def learned(fields: Fields) -> Learned:
    """What a configuration says of its networks. Raises ValueError on a name that is not known."""
    kind = fields.get("prediction_type", "flow_prediction")
    if "clip_denoised" in fields:  # a consistency model
        low, high = fields["sigma_min"], fields["sigma_max"]
        rule = Consistency(fields["sigma_data"], low)
        clip = (-1.0, 1.0) if fields["clip_denoised"] else None
        return Learned(EDM(t_min=low, t_max=high), rule, rule.c_noise, clip)
    if fields.keys() == {"num_train_timesteps", "trained_betas"}:  # IPNDM
        return Learned(Angle(), "v")
    if "sigma_data" in fields and "sigma_max" not in fields:  # sCM
        data = fields["sigma_data"]
        if kind != "trigflow":
            raise ValueError(f"prediction_type={kind!r} of SCMScheduler: it has 'trigflow' alone")
        return Learned(TrigFlow(sigma_data=data), Trig(data))
    if "sigma_data" in fields:
        made = {"epsilon": F, "v_prediction": NegativeF}.get(kind)
        if made is None:
            raise ValueError(f"prediction_type={kind!r} is none of epsilon, v_prediction")
        process = EDM(t_min=fields["sigma_min"], t_max=fields["sigma_max"])
        return Learned(process, made(fields["sigma_data"]), "log_sigma/4", _clip(fields))
    if kind not in PREDICTIONS:
        raise ValueError(f"prediction_type={kind!r} is none of {', '.join(PREDICTIONS)}")
    n, told = fields["num_train_timesteps"], PREDICTIONS[kind]
    if "shift" in fields or fields.get("use_flow_sigmas"):
        label = "1000t" if n == 1000 else partial(_of_count, n)
        if fields.get("invert_sigmas"):
            return Learned(FlowMatching(), inverted, partial(_of_signal, n), None)
        return Learned(FlowMatching(), told, label, _clip(fields))
    logs = fields.get("timestep_type") == "continuous" and kind == "v_prediction"
    return Learned(table(fields), told, "log_sigma/4" if logs else "t", _clip(fields))


def _of_count(n: int, at: Point) -> float:
    return n * at.t


def _of_signal(n: int, at: Point) -> float:
    return n * (1.0 - at.t)


def _clip(fields: Fields) -> tuple[float, float] | None:
    if "snr_shift_scale" in fields:  # CogVideoX has the fields and does not read them
        return None
    if fields.get("thresholding"):  # a threshold of at most 1 is 1
        return -1.0, 1.0
    if not fields.get("clip_sample"):
        return None
    size = float(fields["clip_sample_range"])
    return -size, size


def table(fields: Fields) -> Discrete:
    """The table of alpha_bar, in float32 as diffusers has it. Raises ValueError where there is none."""
    n = fields["num_train_timesteps"]
    betas = _betas(fields, n)
    if len(betas) != n:
        raise ValueError(
            f"trained_betas has {len(betas)} entries and num_train_timesteps is {n}: say the same"
        )
    bar = torch.cumprod(1.0 - betas, dim=0)
    if "snr_shift_scale" in fields:
        bar = _shifted_snr(fields, bar)
    elif fields.get("rescale_betas_zero_snr"):
        bar = _zero_terminal_snr(bar)
    return Discrete(alpha_bar=tuple(bar.double().tolist()))


def _betas(fields: Fields, n: int) -> Tensor:
    low, high, name = fields["beta_start"], fields["beta_end"], fields["beta_schedule"]
    if fields["trained_betas"] is not None:
        return torch.tensor(np.asarray(fields["trained_betas"]), dtype=torch.float32)
    if name == "linear":
        return torch.linspace(low, high, n, dtype=torch.float32)
    if name == "scaled_linear":
        wide = torch.float64 if "snr_shift_scale" in fields else torch.float32  # as of CogVideoX
        return torch.linspace(math.sqrt(low), math.sqrt(high), n, dtype=wide) ** 2
    if name == "sigmoid":
        return torch.linspace(-6.0, 6.0, n).sigmoid() * (high - low) + low
    if name not in BARS:
        raise ValueError(
            f"beta_schedule={name!r} is not known; give trained_betas in the configuration"
        )
    bars = [BARS[name](i / n) for i in range(n + 1)]
    betas = [min(1.0 - after / before, 0.999) for before, after in pairwise(bars)]
    return torch.tensor(betas, dtype=torch.float32)


# alpha_bar at a share of the time, of schedules that are given by it.
BARS: dict[str, Callable[[float], float]] = {
    "squaredcos_cap_v2": lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2,
    "exp": lambda u: math.exp(-12.0 * u),
}


def _shifted_snr(fields: Fields, bar: Tensor) -> Tensor:
    """CogVideoX's: alpha^2 / sigma^2 divided by snr_shift_scale, and then rescaled without its betas."""
    by = fields["snr_shift_scale"]
    bar = bar / (by + (1.0 - by) * bar)
    return _square_from_0(bar) if fields["rescale_betas_zero_snr"] else bar


def _square_from_0(bar: Tensor) -> Tensor:
    """sqrt(alpha_bar) moved to end at 0, and its first kept (Lin et al. 2024, algorithm 1)."""
    q = bar.sqrt()
    return ((q - q[-1]) * (q[0] / (q[0] - q[-1]))) ** 2


def _zero_terminal_snr(bar: Tensor) -> Tensor:
    """The table rescaled so that its last alpha_bar is 0, by way of its betas, whose rounding it then has."""
    square = _square_from_0(bar)
    betas = 1.0 - torch.cat([square[:1], square[1:] / square[:-1]])
    return torch.cumprod(1.0 - betas, dim=0)
