"""What samples are conditioned on, by --class, --prompt and --compose, and how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
Compose = Annotated[
    list[str] | None,
    typer.Option(
        "--compose",
        help="a prompt or a class with its weight, as 'a cat=2' or 3=0.5; repeatable: every sample follows "
        "them all, and leads away from those of a weight below 0",
    ),
]

Database = Annotated[
    Path | None,
    typer.Option(
        help="a text file, a name a line: a network that reads neighbours is told the names nearest to each "
        "prompt"
    ),
]


def with_names(network: ScoreNetwork, database: Path | None, prompts: bool) -> ScoreNetwork:
    """The network, of one that reads neighbours with the names of a file to look for them.

    prompts  whether there are any
    Raises ValueError where the file is none of names, or the network has no use for them or none to use.
    """
    if database is None and (not prompts or network.text is not None):
        return network
    from ..drivers.database import reads_neighbours, with_database

    if database is not None:
        return with_database(network, names_of(database))
    if reads_neighbours(network):
        raise ValueError(
            f"the network {network.name!r} is told the neighbours of a prompt: say by --database in which "
            "file they are, a name a line"
        )
    return network


def names_of(path: Path) -> list[str]:
    """The lines of a text file but for empty ones. Raises ValueError where it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ValueError(f"the database {path} cannot be read ({reason})") from error
    return [name for line in lines if (name := line.strip())]


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


def composed_of(
    network: ScoreNetwork, given: list[str], asked: Mapping[str, str]
) -> list[tuple[int | str, float]]:
    """The conditions and weights of --compose, for Sampler.sample.

    asked  the options that stand on the command line, by parameter
    Raises ValueError where one is not understood, or another option says what samples follow.
    """
    if beside := [asked[name] for name in ("classes", "prompt", "guidance") if name in asked]:
        raise ValueError(
            f"--compose says what samples follow and how much: leave out {', '.join(beside)}"
        )
    return [_weighed(network, item) for item in given]


def _weighed(network: ScoreNetwork, item: str) -> tuple[int | str, float]:
    from ..networks.condition import check_prompts

    text, _, number = item.rpartition("=")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not text or not math.isfinite(weight):
        raise ValueError(
            f"--compose {item!r}: write a prompt or a class and its weight, as 'a cat=2' or 3=0.5"
        )
    if network.classes is not None and text.isdecimal():
        return int(text), weight
    check_prompts(network, [text])
    return text, weight


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


def columns_of(condition: list[Any] | None) -> int | None:
    """One column a class, or a prompt, where they are taken in turn; prompts of which each is taken once make
    no row."""
    given = condition or []
    period = len(set(given))
    if period < 2 or any(a != b for a, b in zip(given, given[period:], strict=False)):
        return None
    return None if isinstance(given[0], str) and period == len(given) else period
