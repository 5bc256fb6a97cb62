"""Where the time of a run of the digits network goes: python -m benchmarks.runs.profile.

The rows are the parts that `diffusion-engine profile --solver dpmpp_2m --steps 20 --n 16` prints.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from diffusion_engine import Sampler
from diffusion_engine.profiling import profile
from diffusion_engine.zoo import load_network

from .. import results, timing

SOLVER, STEPS, SAMPLES, RUNS = "dpmpp_2m", 20, 16, 10
THREADS = 2


def measure() -> Iterator[results.Row]:
    sampler = Sampler(load_network("digits"), SOLVER, STEPS, guidance=2.0)
    others = timing.Others()
    found = profile(sampler, SAMPLES, [seed % 10 for seed in range(SAMPLES)], RUNS)
    shared = {"solver": SOLVER, "samples": SAMPLES, "rows": found.rows, "others": others.share()}
    for part in found.parts:
        yield results.row(
            torch.device("cpu"), results.PROFILE_KEYS, **shared, part=part.name, within=part.within,
            calls_per_row=None if part.calls is None else part.calls / found.rows,
            us_per_row=part.seconds / found.rows * 1e6, share=part.seconds / found.seconds,
        )  # fmt: skip


def main() -> None:
    torch.set_num_threads(THREADS)
    rows = list(measure())
    print(
        f"wrote {results.replace(rows, results.PROFILE)}: other processes took {rows[0]['others']}"
    )


if __name__ == "__main__":
    main()
