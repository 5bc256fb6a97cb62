"""The prompts that the emoji networks are asked, held against the captions that these were trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from diffusion_engine.training.emoji import Emoji

PROMPTS = Path(__file__).parents[1] / "prompts"


@cache
def prompts(name: str) -> dict[str, str]:
    """Prompts of a file of `prompts/`, and the name of the picture that each means."""
    found = json.loads((PROMPTS / f"{name}.json").read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {each: each for each in found}


def digests(captions: Iterable[str]) -> list[str]:
    """Of captions, those that are different, sorted."""
    return sorted({hashlib.sha256(each.encode()).hexdigest()[:8] for each in captions})


def trained_on() -> list[str]:
    """The digests of all training captions, which stand here so that a prompt can be told from them where the
    captions themselves are not."""
    return (PROMPTS / "trained.txt").read_text(encoding="ascii").split()


def check(found: Emoji, asked: Mapping[str, str]) -> None:
    """Raises ValueError where a name is of no picture, or a paraphrase is a training caption."""
    if unknown := sorted(set(asked.values()) - set(found.names)):
        raise ValueError(f"no picture is called {', '.join(unknown)}")
    captions = {caption for each in found.captions for caption in each}
    if same := [each for each, name in asked.items() if each != name and each in captions]:
        raise ValueError(f"{', '.join(same)}: no paraphrase, but a caption that is trained on")
