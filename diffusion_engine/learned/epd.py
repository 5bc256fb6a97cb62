"""The parameters of a published EPD predictor as a learned table (Zhu et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import checks
from ..processes import FlowMatching, GaussianProcess
from .plans import table_of_states
from .table import Table

Array = np.ndarray
NAMES = ("r_params", "scale_dir_params", "scale_time_params", "weight_s")


def epd(
    predictor: Mapping[str, Any],
    process: GaussianProcess,
    sigmas: Sequence[float],
    *,
    scale_dir: float = 0.0,
    scale_time: float = 0.0,
    fcn: bool = False,
    denoise: bool = False,
    **about: object,
) -> Table:
    """The table of an EPD solver: of a step from g to g' a call at x, and K at points of its line, where
    g_k = g'^r_k g^(1 - r_k): x += (g' - g) sum_k w_k s_k d(x_k, c_k g_k), d = (x - D) / g (eq. 9).

    predictor  r_params, scale_dir_params, scale_time_params and weight_s, [steps, K] each, as the published
               class names them in its state_dict: tensors, arrays or lists
    process    of the network; of flow matching the sigmas are times, else x / alpha moves in sigma / alpha
    sigmas     the steps' ends, falling, as the predictor's schedule has them: one more than its steps
    scale_dir, scale_time, fcn  what the predictor was made with; fcn: the last step has s_k = 1
    denoise    after the last step another call, to clean data
    about      network, guidance, note
    A predictor made with afs=True has no call at the first x and makes no table. Raises ValueError where the
    parameters or sigmas do not fit.
    """
    g = np.array([checks.number(f"sigmas[{i}]", s) for i, s in enumerate(sigmas)])
    r, along, told, w = (_read(predictor, name, len(g) - 1) for name in NAMES)
    along, told = _scale(along, scale_dir), _scale(told, scale_time)
    if fcn:
        along[-1] = 1.0
    r, w = 1.0 / (1.0 + np.exp(-r)), np.exp(w - w.max(axis=1, keepdims=True))
    w = w / w.sum(axis=1, keepdims=True)
    steps, k = r.shape
    unit = np.eye(steps * (k + 1) + denoise + 1)
    x, states, levels = unit[0], [], []
    for i in range(steps):
        states.append(x)
        levels.append(g[i])
        slope, mean = (x - unit[len(states)]) / g[i], np.zeros(len(unit))
        for j in range(k):
            middle = g[i + 1] ** r[i, j] * g[i] ** (1.0 - r[i, j])
            states.append(x + (middle - g[i]) * slope)
            levels.append(told[i, j] * middle)
            mean = mean + w[i, j] * along[i, j] * (states[-1] - unit[len(states)]) / middle
        x = x + (g[i + 1] - g[i]) * mean
    states.append(x)
    levels.append(g[-1])
    flow = isinstance(process, FlowMatching)
    points = [process.at(level) if flow else process.at_ratio(level) for level in levels]
    if not flow:  # x / alpha is what moves, and x what a table has
        made = [p.alpha * s for p, s in zip(points, states, strict=True)]
        states = [np.concatenate((s[:1] / points[0].alpha, s[1:])) for s in made]
    if denoise:
        points.append(process.clean)
        states.append(unit[-1])
    exact = not (scale_dir or scale_time)
    return table_of_states(process, points, np.array(states), exact=exact, family="epd", **about)


def _read(predictor: Mapping[str, Any], name: str, steps: int) -> Array:
    if name not in predictor:
        raise ValueError(f"the predictor has no {name}; it has {', '.join(predictor) or 'nothing'}")
    given = predictor[name]
    made = np.array(given.tolist() if hasattr(given, "tolist") else given, dtype=np.float64)
    if made.ndim != 2 or len(made) != steps or not made.size or not np.isfinite(made).all():
        raise ValueError(
            f"{name} is {list(made.shape)} for {steps + 1} sigmas; give finite numbers [steps, K], and one "
            "sigma more than steps"
        )
    return made


def _scale(free: Array, within: float) -> Array:
    """2 sigmoid(p / 2) within + 1 - within, as the published class has it."""
    return 2.0 / (1.0 + np.exp(-0.5 * free)) * within + 1.0 - within
