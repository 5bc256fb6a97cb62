"""The training loop of the zoo: clipped gradients, an average of the weights, a line every 100 steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .. import zoo


@dataclass(frozen=True)
class Pace:
    """What a loop reads of a command's settings."""

    steps: int
    lr: float
    warm_up: int
    clip: float
    ema: float


def rate(step: int, pace: Pace) -> float:
    """Learning rate: linear warm-up, then a half cosine down to zero."""
    warm = min(1.0, (step + 1) / pace.warm_up)
    return pace.lr * warm * 0.5 * (1.0 + math.cos(math.pi * step / pace.steps))


def fit(
    module: nn.Module,
    loss_of: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    pace: Pace,
    path: Path,
    config: dict[str, Any],
    every: int,
) -> None:
    """Train and write the averaged weights and config to `path`, also every `every` steps.

    Args:
        module: what the optimizer trains.
        loss_of: draws a batch and returns its loss.
        pace: see `Pace`.
        path: ends in .safetensors; its folder is made if absent.
        config: JSON content; what was done goes into its "training".
        every: steps between two writings, positive.
    """
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(pace.ema))
    path.parent.mkdir(parents=True, exist_ok=True)
    begin, total = time.perf_counter(), 0.0
    for step in range(pace.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, pace)
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), pace.clip)
        optimizer.step()
        average.update_parameters(module)
        total += loss.item()
        done = step + 1
        if done % 100 == 0 or done == pace.steps:
            since = time.perf_counter() - begin
            mean = total / ((done - 1) % 100 + 1)
            print(f"step {done}  loss {mean:.5f}  {since / done:.3f} s/step", flush=True)
            total = 0.0
            config["training"] |= {"steps_done": done, "loss": round(mean, 6)}
        if done % every == 0 or done == pace.steps:
            zoo.save(path, average.module, config)
