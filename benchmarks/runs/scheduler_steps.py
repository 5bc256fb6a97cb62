"""The time of a step of EngineScheduler beside that of the class it stands for: what a pipeline does around
its network, set_timesteps included, which here returns a ready tensor.

    python -m benchmarks.runs.scheduler_steps
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_engine.adapters.diffusers import EngineScheduler

from .. import results, timing
from ..timing import Task

NAMES = (
    "DDIM", "DDPM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "DPMSolverMultistep",
    "UniPCMultistep", "FlowMatchEulerDiscrete",
)  # fmt: skip
SHAPES = ((1, 4, 8, 8), (1, 4, 64, 64))
STEPS, ROUNDS = 20, 101


def main() -> None:
    import diffusers

    torch.set_num_threads(1)
    made = []
    for name in NAMES:
        theirs = getattr(diffusers, f"{name}Scheduler")()
        ours = EngineScheduler.from_config(theirs)
        for shape in SHAPES:
            made.append(compared(f"{name}Scheduler", theirs, ours, shape))
            print(" ".join(f"{key}={made[-1][key]}" for key in results.STEP_KEYS[:6]))
    results.replace(made, results.STEPS)


def compared(name: str, theirs: Any, ours: Any, shape: tuple[int, ...]) -> results.Row:
    """The row of one class: both make a run in turn, and of each the least counts, which others on the
    machine disturb least."""
    x, out = torch.randn(shape), torch.randn(shape)
    with torch.no_grad():
        both = {"theirs": theirs, "ours": ours}
        tasks = [Task(who, [run(s, x, out)]) for who, s in both.items()]
        others = timing.Others()
        spent = timing.interleave(tasks, ROUNDS, timing.cpu_clock)
    steps = len(theirs.timesteps)
    return results.row(
        torch.device("cpu"),
        results.STEP_KEYS,
        scheduler=name,
        shape=results.dims(shape),
        theirs_us=spent["theirs"].least / steps,
        ours_us=spent["ours"].least / steps,
        theirs_median_us=spent["theirs"].median / steps,
        ours_median_us=spent["ours"].median / steps,
        repeats=ROUNDS,
        others=others.share(),
    )


def run(scheduler: Any, first: Tensor, out: Tensor) -> Callable[[], None]:
    """What a pipeline does around its network: it begins a run and makes its steps."""
    scaled = hasattr(scheduler, "scale_model_input")

    def made() -> None:
        x = first
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            if scaled:
                scheduler.scale_model_input(x, t)
            x = scheduler.step(out, t, x, return_dict=False)[0]

    return made


if __name__ == "__main__":
    main()
