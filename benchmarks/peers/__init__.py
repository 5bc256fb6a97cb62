"""The peers that are timed against the engine end to end, each written as its own documentation says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Contender:
    """Somebody who makes a DDIMRun.

    run      makes the samples, [B, *shape]
    idle     the same loop around a network that returns a ready tensor: the time outside the network
    version  of the package that does it
    """

    run: Callable[[], Tensor]
    idle: Callable[[], object]
    version: str | None = None


# name -> the function that makes its Contender of a DDIMRun, and the devices it is for
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "diffusers": ("diffusers:eager", ("cpu", "cuda")),
    "diffusers:channels_last": ("diffusers:channels_last", ("cpu", "cuda")),
    "diffusers:compile": ("diffusers:compiled", ("cpu",)),
    "diffusers:reduce-overhead": ("diffusers:reduce_overhead", ("cuda",)),
    "diffusers:max-autotune": ("diffusers:max_autotune", ("cuda",)),
    "diffusers:graph": ("diffusers:graphed", ("cuda",)),
    "k-diffusion": ("k_diffusion:euler", ("cpu", "cuda")),
    "onnxruntime": ("onnxruntime:session", ("cpu",)),
    "openvino": ("openvino:compiled", ("cpu",)),
}
# file of peers -> what it needs, by the names that are imported
NEEDS = {
    "diffusers": ("diffusers",),
    "k_diffusion": ("k_diffusion",),
    "onnxruntime": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
}
# Only where they are named: compiling W1 for a CPU takes minutes and comes out slower than eager.
BY_NAME = ("diffusers:compile",)


def missing(name: str) -> list[str]:
    """The packages that a peer needs and that are not installed."""
    needed = NEEDS[PEERS[name][0].split(":")[0]]
    return [package for package in needed if importlib.util.find_spec(package) is None]


def choose(words: str, device: str) -> list[str]:
    """The peers of a device that "all", "none" or a list of names separated by commas stands for;
    "compile" is short for "diffusers:compile". Raises ValueError on an unknown name."""
    here = [name for name, (_, devices) in PEERS.items() if device in devices]
    chosen: set[str] = set()
    for word in words.split(","):
        if word == "all":
            chosen |= set(here) - set(BY_NAME)
        elif word in here:
            chosen.add(word)
        elif f"diffusers:{word}" in here:
            chosen.add(f"diffusers:{word}")
        elif word != "none":
            raise ValueError(
                f"no peer {word!r} on {device}; there are all, none and {', '.join(here)}"
            )
    return [name for name in here if name in chosen]
