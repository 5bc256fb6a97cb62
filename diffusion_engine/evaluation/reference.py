"""The reference: what the classifier sees in draws of the training law; `make` makes it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import safetensors.torch
from torch import Tensor

from ..zoo import config
from .features import WEIGHTS
from .frechet import STATE, FrechetDistance

PATH = Path(__file__).parent / "digits_reference.safetensors"


@dataclass(frozen=True, eq=False)
class Reference:
    """Moments of the features of all draws, and the features [n, d] of the first n of them."""

    moments: dict[str, Tensor]
    features: Tensor

    def distance(self) -> FrechetDistance:
        """Of features from these."""
        return FrechetDistance(self.moments)


@cache
def shipped() -> Reference:
    """That of the digits.

    Raises:
        ValueError: a file is damaged, or was made with another classifier than the one here.
    """
    about = json.loads(PATH.with_suffix(".json").read_text(encoding="utf-8"))
    data = PATH.read_bytes()
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise ValueError(f"{PATH} does not have the checksum that its JSON names; restore both")
    if about["features"]["sha256"] != config(WEIGHTS)["sha256"]:
        raise ValueError(
            f"{PATH} was made with another classifier than {WEIGHTS.name}; make it again: "
            "python -m diffusion_engine.evaluation.make"
        )
    state = safetensors.torch.load(data)
    return Reference({name: state[name] for name in STATE}, state["features"].float())
