"""Pipelines of diffusers with the engine's loop beside their own: python -m benchmarks.runs.pipelines.

Small pipelines, so that what is outside the network counts. Every contender runs with 1 and 2 threads that
wait passively and actively, in turns within a process for each setting, and the best of each counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any
from unittest import mock

import torch

from .. import results
from ..agreement import Disagreement, difference
from ..timing import Others, Spread

SETTINGS = ((1, "passive"), (2, "passive"), (2, "active"))
STEPS, WITHIN = 20, 1e-4
CPU = torch.device("cpu")


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runs.pipelines", description=__doc__)
    made.add_argument("--repeats", type=int, default=15, help="rounds of a call of each")
    made.add_argument("--no-save", action="store_true", help="print only")
    made.add_argument("--waiting", help=argparse.SUPPRESS)
    given = made.parse_args()
    if given.waiting:
        print(json.dumps([*measured(given.waiting, given.repeats)]))
        return
    rows = [row for setting in SETTINGS for row in apart(*setting, given.repeats)]
    for i, row in enumerate(rows):
        results.show(row, i == 0, results.PIPELINES_SHOWN)
    if not given.no_save:
        print(f"wrote {results.replace(rows, results.PIPELINES)}")


def apart(threads: int, waiting: str, repeats: int) -> list[results.Row]:
    own = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": waiting}
    words = [sys.executable, "-m", "benchmarks.runs.pipelines"]
    words += ["--waiting", waiting, "--repeats", str(repeats)]
    done = subprocess.run(words, env=own, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def pipelines() -> dict[str, tuple[Any, dict[str, Any]]]:
    from .networks import pipelines as small

    pooled = {"pooled_prompt_embeds": small.POOLED["pooled_prompt_embeds"]}
    steps = {"num_inference_steps": STEPS}
    return {
        "Stable Diffusion": (small.stable(), small.BOTH | small.SIZE | steps),
        "SDXL": (small.sdxl(), small.BOTH | small.POOLED | small.SIZE | steps),
        "Flux": (small.flux(), small.TEXT | small.SIZE | pooled | steps),
        "DiT": (small.dit(), small.PIXELS | {"class_labels": [1, 2]} | steps),
    }


def contenders(pipe: Any) -> dict[str, Any]:
    from diffusion_engine.adapters.diffusers import EngineScheduler
    from diffusion_engine.adapters.diffusers.pipelines import accelerate_pipeline

    own = type(pipe)(
        **pipe.components | {"scheduler": EngineScheduler.from_config(pipe.scheduler.config)}
    )
    own.set_progress_bar_config(disable=True)
    return {
        "diffusers": pipe,
        "ours:scheduler": own,
        "ours:run": accelerate_pipeline(pipe),
        "ours:run, native": accelerate_pipeline(pipe, executor="native"),
    }


def measured(waiting: str, repeats: int) -> Iterator[results.Row]:
    from diffusion_engine.adapters.diffusers.pipelines import EnginePipeline

    for name, (pipe, given) in pipelines().items():
        calls = contenders(pipe)
        images = {who: called(each, given) for who, each in calls.items()}
        errors = {who: difference(made, images["diffusers"]) for who, made in images.items()}
        for who, error in errors.items():
            if not error <= WITHIN:
                raise Disagreement(f"{who}: the images of {name} are off by {error:.2g}")
        times: dict[str, list[tuple[float, float | None]]] = {who: [] for who in calls}
        others = Others()
        for i in range(repeats):
            for who in calls if i % 2 else reversed(calls):
                own = pipe if isinstance(calls[who], EnginePipeline) else calls[who]
                times[who].append(timed(own, partial(called, calls[who], given)))
        used = others.share()
        for who, found in times.items():
            whole = Spread.of([seconds for seconds, _ in found])
            outside = [seconds for _, seconds in found if seconds is not None]
            yield results.row(
                CPU, results.PIPELINE_KEYS, pipeline=name, contender=who, waiting=waiting,
                ms=whole.median / 1e3, p20_ms=whole.p20 / 1e3, p80_ms=whole.p80 / 1e3,
                outside_us_step=Spread.of(outside).median / STEPS if outside else None, error=errors[who],
                repeats=len(found), others=used, version=results.version("diffusers"),
            )  # fmt: skip


def called(pipe: Any, given: dict[str, Any]) -> torch.Tensor:
    return torch.as_tensor(pipe(**given, generator=torch.Generator().manual_seed(1)).images)


class Clock:
    """The seconds that functions take, one within another counted once each."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                spent = time.perf_counter() - start
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

        return timed


SCHEDULER = ("set_timesteps", "scale_model_input", "step")


def timed(pipe: Any, call: Callable[[], object]) -> tuple[float, float | None]:
    """The seconds of a call of a pipeline, and of what it does between calls of the network: the methods of
    a scheduler, or the engine's loop less the network. None where torch does not call the network."""
    from diffusion_engine.adapters.diffusers.pipelines import loop

    clock = Clock()
    network = getattr(pipe, "unet", None) or pipe.transformer
    kind, steps = type(network), type(pipe.scheduler)
    with ExitStack() as stack:
        for where, name, what in (
            (kind, "forward", "network"),
            (loop.Loop, "made", "loop"),
            *((steps, name, "scheduler") for name in SCHEDULER if hasattr(steps, name)),
        ):
            own = clock.around(what, getattr(where, name))
            stack.enter_context(mock.patch.object(where, name, own))
        start = time.perf_counter()
        call()
        whole = time.perf_counter() - start
    spent = clock.seconds
    if "loop" not in spent:
        return whole, spent["scheduler"]
    return whole, spent["loop"] - spent["network"] if "network" in spent else None


if __name__ == "__main__":
    main()
