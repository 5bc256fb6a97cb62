"""What held-out pixels cost at most under VDM's learned schedule and under a straight one, in minutes:

    diffusion-engine train vdm_fixed --out DIR
    python -m benchmarks.runs.bound DIR/vdm_fixed.safetensors

The network of the straight schedule does not ship. Both are given the same images, times and noise, so that
the difference of an image is that of the networks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion_engine.drivers.likelihood_bound import variational_bound
from diffusion_engine.evaluation import Estimate
from diffusion_engine.training.data import mnist
from diffusion_engine.zoo import load_network

from .. import results

STEPS = (None, 50)  # of discrete time; None is continuous
IMAGES, TIMES = 200, 8
LEARNED, STRAIGHT, MORE = "learned", "straight", "the straight one costs more"


def bits(name: str, steps: int | None) -> Tensor:
    """bits/dim of each image under a network."""
    images, labels = mnist("test")
    chosen = slice(None, None, len(images) // IMAGES)
    found = variational_bound(
        load_network(name), 2.0 * images[chosen] - 1.0, condition=labels[chosen].tolist(), steps=steps,
        times=TIMES, seed=0,
    )  # fmt: skip
    return found.bits_per_dim


def rows(steps: int | None, learned: Tensor, straight: Tensor) -> Iterator[results.Row]:
    """Of the bits/dim of the same images: both means and that of the differences, with standard errors."""
    for schedule, each in (
        (LEARNED, learned),
        (STRAIGHT, straight),
        (MORE, straight - learned),
    ):
        found = Estimate.over(each.tolist())
        yield results.row(
            torch.device("cpu"), results.BOUND_KEYS, steps=steps, schedule=schedule, images=len(each),
            times=TIMES, value=found.value, spread=found.spread,
        )  # fmt: skip


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    torch.set_num_threads(1)
    made = [row for n in STEPS for row in rows(n, bits("vdm", n), bits(sys.argv[1], n))]
    print(f"wrote {results.replace(made, results.BOUND)}")


if __name__ == "__main__":
    main()
