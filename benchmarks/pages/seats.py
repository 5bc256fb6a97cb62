"""docs/seats.png: one batch, whose samples have solvers of their own and come and go.

python -m benchmarks.pages.seats
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion_engine import Sampler
from diffusion_engine.executors import Capacity, Eager, Job
from diffusion_engine.zoo import load_network

from .chart import EDGE, INK, _font

PATH = Path("docs/seats.png")
# (solver, steps, class, the step of the batch at which it joins)
JOBS = (
    ("ddim", 16, 3, 0),
    ("dpmpp_2m", 9, 8, 0),
    ("heun", 6, 5, 2),
    ("euler_ancestral", 12, 0, 4),
    ("unipc", 7, 2, 8),
    ("dpmpp_2m_sde", 8, 9, 9),
)
CELL, GAP, LABEL = 64, 6, 330  # pixels; the labels stand left of the cells


def states() -> list[dict[int, Tensor]]:
    """Each job's x [32, 32] by the step of the batch that made it."""
    network = load_network("digits")
    samplers = [Sampler(network, name, steps, guidance=2.0) for name, steps, _, _ in JOBS]
    plans = [sampler.plan() for sampler in samplers]
    conditions = [(torch.tensor(digit), torch.tensor(network.null)) for _, _, digit, _ in JOBS]
    room = Capacity.of(
        network, plans, len(JOBS), device=torch.device("cpu"), conditions=conditions[0]
    )
    batch = Eager().open(network, room)
    seen: list[dict[int, Tensor]] = [{} for _ in JOBS]
    now = 0

    def keep(job: int, _row: int, x: Tensor, _denoised: Tensor | None) -> None:
        seen[job][now] = x[0].clone()

    while not now or batch.live:
        for job, (_, _, _, joins) in enumerate(JOBS):
            if joins == now:
                told = partial(keep, job)
                batch.admit(Job(plans[job], 10 + job, conditions[job], on_row=told))
        for seat in batch.step():
            batch.release(seat)
        now += 1
    return seen


def draw(seen: list[dict[int, Tensor]], path: Path) -> None:
    """Writes the PNG: a line for each job, a column for each step of the batch."""
    columns = 1 + max(max(steps) for steps in seen)
    width = 2 * EDGE + LABEL + columns * (CELL + GAP) - GAP
    image = Image.new("RGB", (width, 2 * EDGE + 50 + len(JOBS) * (CELL + GAP)), "white")
    pen = ImageDraw.Draw(image)
    for line, ((solver, steps, digit, _), kept) in enumerate(zip(JOBS, seen, strict=True)):
        y = EDGE + line * (CELL + GAP)
        pen.text((EDGE, y + CELL // 2), f"{solver}, {steps} steps", INK, _font(24), anchor="lm")
        pen.text((EDGE + LABEL - 20, y + CELL // 2), f"{digit}", INK, _font(24), anchor="rm")
        for step, x in kept.items():
            gray = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
            cell = Image.fromarray(gray).resize((CELL, CELL), Image.Resampling.LANCZOS)
            image.paste(cell, (EDGE + LABEL + step * (CELL + GAP), y))
    below = "each column is one step of the batch: one call of the network, one kernel"
    pen.text((EDGE + LABEL, image.height - EDGE), below, INK, _font(24), anchor="ls")
    image.quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    draw(states(), PATH)
