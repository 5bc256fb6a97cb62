"""The shapes that ops are timed at: states of a run, and the layers of one sample's call of the workloads.

`runs/networks/calls.py` finds the layers of W1, W4, W5 and W6 in diffusers' networks, of W2 in `ddpmpp.py`
and of W3 in `ncsnpp.py`, both with attention at 16x16 with one head; a test does it again for W1 to W3. W6's
attention is left out: its head dim of 512 is none of the op's.
"""

from __future__ import annotations

from collections.abc import Sequence

Shape = tuple[int, ...]

# (shape, layout) of states
STATES: tuple[tuple[Shape, str], ...] = (
    ((1, 3, 32, 32), "contiguous"),
    ((64, 3, 32, 32), "contiguous"),
    ((4, 4, 64, 64), "contiguous"),
    ((64, 3, 32, 32), "channels_last"),
    ((16, 3, 256, 256), "contiguous"),
)

# (shape [C, *pixel], SiLU) in 32 groups
NORMS: dict[str, tuple[tuple[tuple[int, ...], bool], ...]] = {
    "W1": (
        ((128, 32, 32), True), ((256, 32, 32), True), ((384, 32, 32), True), ((128, 16, 16), True),
        ((256, 16, 16), True), ((384, 16, 16), True), ((512, 16, 16), True), ((256, 256), False),
        ((256, 8, 8), True), ((512, 8, 8), True), ((256, 16), False), ((256, 4, 4), True),
        ((512, 4, 4), True),
    ),
    "W2": (
        ((128, 32, 32), True), ((256, 32, 32), True), ((384, 32, 32), True), ((512, 32, 32), True),
        ((256, 16, 16), True), ((512, 16, 16), True), ((256, 16, 16), False), ((256, 8, 8), True),
        ((512, 8, 8), True), ((256, 8, 8), False),
    ),
    "W3": (
        ((128, 32, 32), True), ((256, 32, 32), True), ((384, 32, 32), True), ((256, 16, 16), True),
        ((512, 16, 16), True), ((256, 8, 8), True), ((512, 8, 8), True), ((256, 4, 4), True),
        ((128, 16, 16), True), ((384, 16, 16), True), ((256, 16, 16), False), ((512, 4, 4), True),
        ((256, 4, 4), False),
    ),
    "W4": (
        ((320, 64, 64), False), ((320, 64, 64), True), ((640, 64, 64), True), ((960, 64, 64), True),
        ((320, 32, 32), True), ((640, 32, 32), False), ((640, 32, 32), True), ((960, 32, 32), True),
        ((1280, 32, 32), True), ((1920, 32, 32), True), ((640, 16, 16), True),
        ((1280, 16, 16), False), ((1280, 16, 16), True), ((1920, 16, 16), True),
        ((2560, 16, 16), True), ((1280, 8, 8), False), ((1280, 8, 8), True), ((2560, 8, 8), True),
    ),
    "W6": (
        ((512, 4096), False), ((512, 64, 64), True), ((512, 128, 128), True), ((512, 256, 256), True),
        ((256, 256, 256), True), ((256, 512, 512), True), ((128, 512, 512), True),
    ),
}  # fmt: skip

# (heads, queries, keys, head dim)
ATTENTIONS: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "W1": ((1, 256, 256, 256), (1, 16, 16, 256)),
    "W2": ((1, 256, 256, 256), (1, 64, 64, 256)),
    "W3": ((1, 256, 256, 256), (1, 16, 16, 256)),
    "W4": (
        (8, 4096, 4096, 40), (8, 4096, 77, 40), (8, 1024, 1024, 80), (8, 1024, 77, 80),
        (8, 256, 256, 160), (8, 256, 77, 160), (8, 64, 64, 160), (8, 64, 77, 160),
    ),
    "W5": ((16, 256, 256, 72),),
    # No workload has such narrow heads; small networks of one's own do.
    "narrow": ((32, 256, 256, 8), (16, 256, 256, 16), (8, 1024, 1024, 8), (8, 1024, 1024, 16)),
}  # fmt: skip

# (C, output channels, H, W) of stride 1
CONVOLUTIONS: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "W1": (
        (3, 128, 32, 32), (128, 128, 32, 32), (256, 128, 32, 32), (384, 128, 32, 32),
        (256, 256, 32, 32), (128, 3, 32, 32), (128, 256, 16, 16), (256, 256, 16, 16),
        (384, 256, 16, 16), (512, 256, 16, 16), (256, 256, 8, 8), (512, 256, 8, 8), (256, 256, 4, 4),
        (512, 256, 4, 4),
    ),
    "W4": (
        (4, 320, 64, 64), (320, 320, 64, 64), (640, 320, 64, 64), (960, 320, 64, 64),
        (640, 640, 64, 64), (320, 4, 64, 64), (320, 640, 32, 32), (640, 640, 32, 32),
        (960, 640, 32, 32), (1280, 640, 32, 32), (1920, 640, 32, 32), (1280, 1280, 32, 32),
        (640, 1280, 16, 16), (1280, 1280, 16, 16), (1920, 1280, 16, 16), (2560, 1280, 16, 16),
        (1280, 1280, 8, 8), (2560, 1280, 8, 8),
    ),
}  # fmt: skip

# Samples in a call of the network: W4 and W6 take 2 entries a guided image and single images.
BATCHES = {
    "cpu": {"W1": (1, 8), "W2": (1, 8), "W3": (1, 8), "W4": (2,), "W5": (1, 8), "W6": (1,), "narrow": (1, 8)},
    "cuda": {"W1": (1, 64), "W2": (1, 64), "W3": (1, 64), "W4": (2, 16), "W5": (1, 16), "W6": (1, 8),
             "narrow": (1, 64)},
}  # fmt: skip


def wanted(words: Sequence[str], *parts: object) -> bool:
    """A case is wanted if its label, made of the parts, holds all words."""
    label = " ".join("x".join(map(str, p)) if isinstance(p, tuple) else str(p) for p in parts)
    return all(word in label for word in words)


def norms(device: str) -> list[tuple[str, tuple[int, ...], bool]]:
    """The (workload, shape [B, C, *pixel], SiLU) of a device, each once, the targets' own first."""
    named = [("target", shape, True) for shape in ((8, 128, 32, 32), (1, 256, 64, 64))]
    if device == "cuda":
        named = [("target", (1, 128, side, side), True) for side in (256, 512, 1024)]
    seen: dict[tuple, tuple[str, tuple[int, ...], bool]] = {}
    for entry in named + [
        (workload, (batch, *shape), silu)
        for workload, found in NORMS.items()
        for shape, silu in found
        for batch in BATCHES[device][workload]
    ]:
        seen.setdefault(entry[1:], entry)
    return list(seen.values())


def attentions(device: str) -> list[tuple[str, tuple[int, int, int, int, int]]]:
    """The (workload, (B, heads, queries, keys, dim)) of a device, each once."""
    seen: dict[tuple, tuple[str, tuple[int, int, int, int, int]]] = {}
    for workload, found in ATTENTIONS.items():
        for shape in found:
            for batch in BATCHES[device][workload]:
                seen.setdefault((batch, *shape), (workload, (batch, *shape)))
    return list(seen.values())


def convolutions() -> list[tuple[str, tuple[int, int, int, int, int]]]:
    """The (workload, (B, C, output channels, H, W)) of a CPU."""
    return [
        (workload, (batch, *shape))
        for workload, found in CONVOLUTIONS.items()
        for shape in found
        for batch in BATCHES["cpu"][workload]
    ]
