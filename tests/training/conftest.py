"""Drawings in place of MNIST's images, which another package carries."""

import pytest
import torch

from diffusion_engine.training import data, emoji
from diffusion_engine.training.emoji import CAPTIONS, Emoji


@pytest.fixture(autouse=True)
def drawings(monkeypatch):
    drawn = torch.zeros(60, 1, 32, 32)
    for i, image in enumerate(drawn[:, 0]):
        image[8:24, 9 + i % 5 : 12 + i % 5] = image[7 + i % 9 : 10 + i % 9, 10:20] = 1.0
    monkeypatch.setattr(data, "mnist", lambda split="all": (drawn, torch.arange(60) % 10))


@pytest.fixture(autouse=True)
def dots(monkeypatch):
    """A few coloured squares in place of npm's pictures."""
    n = 24
    images = torch.full((n, 3, 64, 64), 255, dtype=torch.uint8)
    names = []
    for i in range(n):
        images[i, i % 3, 8 : 24 + i, 8 : 24 + i] = 40 * (i // 6)
        names.append(f"square {i}")
    captions = tuple((name, f"a {name}") * (CAPTIONS // 2) for name in names)
    made = Emoji(images, captions, torch.arange(n) % 4, ("a", "b", "c", "d"))
    monkeypatch.setattr(emoji, "emoji", lambda: made)
    return made
