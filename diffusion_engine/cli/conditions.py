"""What samples are conditioned on, by the options --class and --prompt, and how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import MOST, numbers

if TYPE_CHECKING:
    from ..networks.network import ScoreNetwork

Prompt = Annotated[
    list[str] | None,
    typer.Option("--prompt", help="what a sample shall be, in words; repeatable, taken in turn"),
]
NegativePrompt = Annotated[
    str | None,
    typer.Option("--negative-prompt", help="what guidance leads away from, in place of nothing"),
]


def condition_of(
    network: ScoreNetwork, text: str, n: int, prompts: list[str] | None = None
) -> list[int] | list[str] | None:
    """A prompt or a class for each sample, taken in turn; None without any.

    text     of --class
    prompts  those of --prompt
    Raises ValueError where the network takes no such thing.
    """
    classes = classes_of(network, text, n)
    if not prompts:
        return classes
    from ..networks.condition import check_prompts

    check_prompts(network, prompts)
    return [prompts[i % len(prompts)] for i in range(n)]


def classes_of(network: ScoreNetwork, text: str, n: int) -> list[int] | None:
    """A class for each sample, taken in turn; None without any."""
    if not 1 <= n <= MOST:
        raise ValueError(f"n={n}: ask for at least 1 sample, and at most {MOST} at once")
    if network.classes is None and text not in ("all", "none"):
        what = "takes prompts and no class" if network.text else "has no classes"
        raise ValueError(f"--class {text}: the network {network.name!r} {what}; leave it out")
    if text == "none" or network.classes is None:
        return None
    chosen = list(range(network.classes)) if text == "all" else numbers(text)
    return [chosen[i % len(chosen)] for i in range(n)]


def count(
    n: int | None, seeds: list[int] | None, images: int | None, prompts: list[str] | None
) -> int:
    """How many samples were asked for.

    images  how many are given: one is for all samples
    """
    if n is not None:
        return n
    if seeds is not None:
        return len(seeds)
    if images is not None and images > 1:
        return images
    return len(prompts) if prompts else images or 50
