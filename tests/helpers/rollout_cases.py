"""Stochastic solvers in all their forms, and the law of what a row draws, seen from outside:
an engine's run is repeated with other normals in that row."""

import math
import re

import numpy as np
import torch
from analytic import BY_SCHEDULE
from law_cases import ALL as FORMS
from law_cases import GAUSSIAN, network

from diffusion_engine import Sampler
from diffusion_engine.processes import CLD, EDM, Discrete

ALL = ("log_prob", "trajectory", "noise")
EXACT = {"dtype": torch.float64, "backend": "torch"}
REFUSALS = re.compile("cannot run this:|steps to clean data and|steps were asked of a table")
SHORT = {"ald": {"n_steps": 2, "snr": 0.5}}  # of a hundred calls a level


STOCHASTIC = [form for form in FORMS if form.kind(**form.options).stochastic]


def sampler(form, data=GAUSSIAN, **how):
    """One of the form, of few steps."""
    options = SHORT.get(form.name, {}) | form.options
    process = [BY_SCHEDULE["vp"], BY_SCHEDULE["sd"], EDM(), CLD(), Discrete.few(4)]
    grid = {"grid": "uniform"} if "step" in options else {}
    for at in process[-1:] if form.name == "ddgan" else process:
        for steps in (4, 3, 22):  # 1/N takes more than 20
            try:
                exact = network(form, data, at)
                return Sampler(exact, form.name, steps, **EXACT | how, **grid, **options)
            except ValueError as error:
                if not REFUSALS.search(str(error)):
                    raise
    raise LookupError(f"no process suits {form}")


def log_density(made, rollout, row):
    """[n], that of what a row drew, by the states that other normals lead to."""
    noise, place = rollout.noise, rollout.rows.index(row)

    def after(z):
        changed = noise.clone()
        changed[row] = z[:, None, None]
        again = made.sample(seeds=rollout.seeds, noise=changed, record="trajectory").rollout
        return again.trajectory[:, row].unflatten(1, (len(rollout.slots), -1)).numpy()

    count = noise.shape[1]
    mean = after(torch.zeros(count))
    columns = np.stack([after(torch.eye(count)[m]) - mean for m in range(count)], -1)
    state = rollout.after[:, place].unflatten(1, (len(rollout.slots), -1)).numpy()
    off, columns = np.moveaxis(state - mean, 1, -1), np.moveaxis(columns, 1, -2)
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    kept = s > 1e-9 * s.max(-1, keepdims=True)  # on the law's own support
    size = np.where(kept, s, 1.0)
    w = np.where(kept, np.einsum("...km,...k->...m", u, off) / size, 0.0)
    density = -0.5 * w**2 - np.log(size) - 0.5 * math.log(2.0 * math.pi) * kept
    return density.sum(axis=-1).reshape(len(state), -1).sum(1)
