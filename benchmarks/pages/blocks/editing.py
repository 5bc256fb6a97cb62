"""What docs/editing.md shows: pictures of the network 'emoji', and the commands that make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .gallery import folded

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "docs" / "editing"
MODEL = "emoji"
SIDE = 64  # of its pictures
MASK = (8, 16, 56, 36)  # what is free: left, top, right, bottom
COLUMNS, WIDTH = 4, 168  # of pictures on the page


@dataclass(frozen=True)
class Step:
    """A command of the page, and what its picture shows; "" where the page shows none.

    words  the command and its options, but for --model and --out
    """

    out: str
    shows: str
    words: tuple[str, ...]

    @property
    def command(self) -> list[tuple[str, ...]]:
        """The command line, each option with its value."""
        first, *rest = self.words
        parts: list[tuple[str, ...]] = [("diffusion-engine", first), ("--model", MODEL)]
        for word in rest:
            if word.startswith("--") or len(parts[-1]) > 1:
                parts.append((word,))
            else:
                parts[-1] += (word,)
        return [*parts, ("--out", self.out)]


def _four(out: str, shows: str, *words: str) -> Step:
    """Four samples."""
    return Step(out, shows, ("sample", "--seeds", "0-3", *words))


def _told(option: str, **given: object) -> tuple[str, ...]:
    return tuple(word for name, value in given.items() for word in (option, f"{name}={value}"))


def _both(out: str, how: str, levels: int, **chain: object) -> Step:
    """A cat and something blue, by ddpm and a chain behind each of its steps."""
    words = ["--compose", "a cat=2", "--compose", "something blue=2"]
    words += ["--solver", "ddpm", "--steps", str(levels)]
    if chain:
        words += ["--driver", "annealed_mcmc", *_told("--driver-option", **chain, unit="sigma")]
    return _four(out, f"both: {how}", *words)


CAT, DOG = ("--prompt", "a cat face"), ("--prompt", "a dog face")
DDIM = ("--solver", "ddim", "--steps", "50")
AGAIN = ("sample", "--x", "cat.npz", "--noised", *DDIM)
SECTIONS: dict[str, tuple[Step, ...]] = {
    "source": (Step("cat.png", "cat.png", ("sample", "--seeds", "0", *CAT)),),
    "image": tuple(
        _four(f"dog_{10 * t:.0f}.png", f"start {t}", "--x", "cat.png", "--start", str(t), *DOG)
        for t in (0.4, 0.6, 0.8, 0.9)
    ),
    "inpainting": (
        _four(
            "eyes.png", "heart eyes", "--known", "cat.png", "--mask", "mask.png", "--prompt",
            "a smiling cat face with heart eyes",
        ),
    ),
    "encoding": (
        Step("cat.npz", "", ("encode", "cat.png", *DDIM, *CAT, "--guidance", "1")),
        Step("back.png", "a cat face, guidance 1", (*AGAIN, *CAT, "--guidance", "1")),
        Step("tiger.png", "a tiger face", (*AGAIN, "--prompt", "a tiger face")),
        Step("panda.png", "a panda", (*AGAIN, "--prompt", "a panda")),
    ),
    "negative": (
        _four("hearts.png", "a heart", "--prompt", "a heart"),
        _four("not_red.png", "and not red", "--prompt", "a heart", "--negative-prompt", "red"),
    ),
    "composition": (
        _four("one.png", "a cat", "--prompt", "a cat"),
        _four("other.png", "something blue", "--prompt", "something blue"),
        _four("words.png", "one prompt: a blue cat", "--prompt", "a blue cat"),
        _both("both.png", "20 calls", 20),
        _both("both_80.png", "80 calls", 80),
        _both("both_ula.png", "ULA, 80 calls", 20, sampler="ula", steps=3, step=0.1),
        _both("both_uhmc.png", "U-HMC, 80 calls", 20, sampler="uhmc", steps=1, step=0.3),
    ),
}  # fmt: skip


def editing_source() -> str:
    return section("source")


def editing_image() -> str:
    return section("image")


def editing_inpainting() -> str:
    return section("inpainting")


def editing_encoding() -> str:
    return section("encoding")


def editing_negative() -> str:
    return section("negative")


def editing_composition() -> str:
    return section("composition")


def section(name: str) -> str:
    """The commands of a section, and their pictures side by side."""
    steps = SECTIONS[name]
    code = "\n".join(folded(step.command) for step in steps)
    shown = [step for step in steps if step.shows]
    rows = [shown[i : i + COLUMNS] for i in range(0, len(shown), COLUMNS)]
    return "\n\n".join([f"```bash\n{code}\n```", *map(_table, rows)])


def _table(steps: Sequence[Step]) -> str:
    """A table of one row."""
    lines = [[step.shows for step in steps], ["---"] * len(steps), [_image(step) for step in steps]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _image(step: Step) -> str:
    return f'<img src="editing/{step.out}" width="{WIDTH}" alt="{step.shows}">'
